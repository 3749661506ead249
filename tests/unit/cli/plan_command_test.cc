#include "cli/plan_command.h"

#include <algorithm>
#include <functional>
#include <string>
#include <vector>

#include "cli/commands.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/testutil/process.h"

namespace smartpipe {
namespace {

using ::testing::AllOf;
using ::testing::ContainsRegex;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using Json = nlohmann::json;

class PlanCommandTest : public ::testing::Test {
 protected:
  // Layers of 1, 1 and 1 us, of which 1000 bytes leave, with 100 bytes of weights.
  static Json Layers(int num_layers) {
    Json layers = Json::array();
    for (int i = 0; i < num_layers; ++i) {
      layers.push_back({{"name", "layer" + std::to_string(i)},
                        {"forward_us", 1},
                        {"input_grad_us", 1},
                        {"weight_grad_us", 1},
                        {"output_bytes", 10},
                        {"param_bytes", 100},
                        {"activation_bytes", 50}});
    }
    return {{"layers", layers}};
  }
  PlanArguments Arguments(const Json& costs, int stages, int frontier = 0) {
    PlanArguments arguments;
    arguments.costs_path = dir_.File("costs.json");
    testutil::WriteFile(arguments.costs_path, costs.dump());
    arguments.stages = stages;
    arguments.microbatches = 8;
    arguments.frontier = frontier;
    return arguments;
  }
  Json Result(const PlanArguments& arguments) {
    const auto report = MakePlan(arguments);
    EXPECT_TRUE(report.ok()) << report.status();
    if (!report.ok()) return {};
    text_ = PlanText(*report);
    return Json::parse(PlanJson(*report));
  }

  testutil::TempDir dir_;
  std::string text_;
};

TEST_F(PlanCommandTest, SplitsEqualLayersEvenly) {
  const Json json = Result(Arguments(Layers(8), 4));
  EXPECT_THAT(json["cuts"].get<std::vector<int>>(), ElementsAre(2, 4, 6));
  // 8 micro-batches of 23 us over 4 workers; the first layer has no input gradient.
  EXPECT_DOUBLE_EQ(json["floor_us"], 46);
  EXPECT_DOUBLE_EQ(json["even_step_us"], 46);
  EXPECT_GE(json["step_us"], 46 + 3 * 6 - 1);
  EXPECT_GT(json["bubble_share"], 0.2);
  EXPECT_EQ(json["speedup"], 1);
  EXPECT_EQ(json["speedup_limit"], 1);
  EXPECT_THAT(json["credits"].get<std::vector<int>>(), ElementsAre(4, 3, 2));
  ASSERT_EQ(json["stages"].size(), 4u);
  const Json& stage = json["stages"][1];
  EXPECT_EQ(stage["worker"], 1);
  EXPECT_EQ(stage["first_layer"], 2);
  EXPECT_EQ(stage["end_layer"], 4);
  EXPECT_EQ(stage["frozen"], false);
  EXPECT_DOUBLE_EQ(stage["forward_us"], 2);
  EXPECT_DOUBLE_EQ(stage["backward_us"], 4);
  EXPECT_NEAR(stage["busy_share"].get<double>(), 8 * 6 / json["step_us"].get<double>(), 1e-6);
  // Two layers: weights, their gradients, 3 activations in flight; of 10 bytes each 4 receive
  // buffers, 4 gradients under way and 3 receive buffers for gradients.
  EXPECT_EQ(stage["memory_bytes"], 2 * (200 + 3 * 50) + 11 * 10);
}

TEST_F(PlanCommandTest, FreezingStandsNextToItsLimits) {
  const Json json = Result(Arguments(Layers(24), 4, 12));
  EXPECT_EQ(json["frontier"], 12);
  EXPECT_EQ(json["stages"][0]["frozen"], true);
  EXPECT_GT(json["stages"][0]["frozen_layers"], 6);
  EXPECT_GT(json["speedup"], 1.3);
  EXPECT_NEAR(json["speedup_limit"], 71.0 / 47, 1e-6);  // units of work without and with freezing
  EXPECT_LE(json["speedup"], json["speedup_max"]);
  EXPECT_NEAR(json["unfrozen"]["step_us"].get<double>() / json["step_us"].get<double>(),
              json["speedup"], 1e-6);
  EXPECT_THAT(text_, HasSubstr("Speed-up"));
  EXPECT_THAT(text_, HasSubstr("allows 1.51x"));
}

TEST_F(PlanCommandTest, GpipeAndOneFOneBWantDifferentCuts) {
  Json costs = Layers(6);
  for (int i = 0; i < 6; ++i) {
    costs["layers"][i]["forward_us"] = i < 2 ? 1 : 3;
    costs["layers"][i]["input_grad_us"] = 0;
    costs["layers"][i]["weight_grad_us"] = i < 2 ? 8 : 1;
  }
  PlanArguments arguments = Arguments(costs, 2);
  const Json one = Result(arguments);
  arguments.schedule = "gpipe";
  EXPECT_NE(Result(arguments)["cuts"], one["cuts"]);
}

TEST_F(PlanCommandTest, FewerTrainableLayersThanStages) {
  const Json json = Result(Arguments(Layers(8), 4, 7));
  EXPECT_EQ(json["stages"][2]["frozen"], true);
  EXPECT_EQ(json["stages"][3]["frozen"], false);
  EXPECT_EQ(json["stages"][3]["backward_us"], 1);
  EXPECT_THAT(json["credits"].get<std::vector<int>>(), ElementsAre(8, 8, 8));
}

TEST_F(PlanCommandTest, OneLayerThatDwarfsTheRestIsTheFloor) {
  Json costs = Layers(9);
  for (const char* key : {"forward_us", "input_grad_us", "weight_grad_us"}) {
    costs["layers"][4][key] = 100;
  }
  const Json json = Result(Arguments(costs, 3));
  EXPECT_THAT(json["cuts"].get<std::vector<int>>(), ElementsAre(4, 5));
  EXPECT_DOUBLE_EQ(json["floor_us"], 2400);
  EXPECT_LT(json["even_step_us"], 1000);
  EXPECT_THAT(text_, HasSubstr("the heaviest layer alone takes that long"));
}

TEST_F(PlanCommandTest, AFasterWorkerGetsMore) {
  Json costs = Layers(12);
  costs["worker_speed"] = {1, 2};
  PlanArguments arguments = Arguments(costs, 2);
  arguments.microbatches = 64;
  const Json json = Result(arguments);
  EXPECT_THAT(json["cuts"].get<std::vector<int>>(), ElementsAre(4));
  EXPECT_EQ(json["stages"][1]["speed"], 2);
  EXPECT_DOUBLE_EQ(json["stages"][1]["forward_us"], 4);
  EXPECT_GT(json["stages"][0]["busy_share"], 0.85);
}

TEST_F(PlanCommandTest, SaysWhichWorkerIsShortOfMemory) {
  PlanArguments arguments = Arguments(Layers(6), 2);
  arguments.memory_limit_bytes = 700;
  const absl::Status status = MakePlan(arguments).status();
  EXPECT_THAT(status.message(), HasSubstr("worker 0 needs 920 bytes, 220 too many"));
  EXPECT_EQ(PlanCommand(arguments), kExitFailed);
  // Frozen layers need less: now there is a plan, but nothing to compare it with.
  arguments.frontier = 3;
  const Json json = Result(arguments);
  EXPECT_EQ(json["speedup"], nullptr);
  EXPECT_THAT(text_, HasSubstr("With nothing frozen no cuts fit the memory"));
  for (const Json& stage : json["stages"]) EXPECT_LE(stage["memory_bytes"], 800);
}

TEST_F(PlanCommandTest, CutsThatAreGivenAreJudged) {
  PlanArguments arguments = Arguments(Layers(24), 4, 12);
  const Json best = Result(arguments);
  arguments.cuts = {6, 12, 18};
  const Json json = Result(arguments);
  EXPECT_THAT(json["cuts"].get<std::vector<int>>(), ElementsAre(6, 12, 18));
  EXPECT_GT(json["step_us"], best["step_us"]);
  EXPECT_EQ(json["best"]["step_us"], best["step_us"]);
  EXPECT_EQ(json["best"]["cuts"], best["cuts"]);
  EXPECT_LT(json["speedup"], best["speedup"]);
  EXPECT_EQ(json["stages"][1]["frozen"], true);
  EXPECT_THAT(json["credits"].get<std::vector<int>>(), ElementsAre(8, 8, 2));
  EXPECT_THAT(text_, HasSubstr("The best cuts found are 12,16,20"));
  arguments.cuts = {6, 12};
  EXPECT_THAT(MakePlan(arguments).status().message(), HasSubstr("2 cuts for 4 stages"));
  arguments.cuts = {6, 6, 12};
  EXPECT_EQ(PlanCommand(arguments), kExitUsage);
  arguments.cuts = {6, 12, 30};
  EXPECT_EQ(PlanCommand(arguments), kExitUsage);
  arguments.cuts = {-1, 12, 18};
  EXPECT_EQ(PlanCommand(arguments), kExitUsage);
}

TEST_F(PlanCommandTest, DrawsTwoSteps) {
  PlanArguments arguments = Arguments(Layers(24), 4, 12);
  arguments.svg_path = dir_.File("plan.svg");
  EXPECT_EQ(PlanCommand(arguments), kExitFinished);
  const std::string svg = testutil::ReadFile(arguments.svg_path);
  EXPECT_THAT(svg, HasSubstr("1f1b, 4 stages, 8 micro-batches, 12 of 24 layers frozen"));
  EXPECT_THAT(svg, HasSubstr("layers 0-11, all frozen"));
  EXPECT_THAT(svg, HasSubstr("end of a step"));
  EXPECT_THAT(svg, AllOf(HasSubstr(">1+1<"), HasSubstr(">0+2<"))) << "stage 0 runs ahead";
  arguments.microbatches = 4096;
  EXPECT_EQ(PlanCommand(arguments), kExitUsage);
}

TEST_F(PlanCommandTest, SeveralStagesOnAWorker) {
  PlanArguments arguments = Arguments(Layers(16), 4);
  const Json plain = Result(arguments);
  arguments.stages = 8;
  arguments.stages_per_worker = 2;
  arguments.schedule = "interleaved_1f1b";
  const Json interleaved = Result(arguments);
  // Half the bubble of the same four workers.
  EXPECT_EQ(interleaved["even_step_us"], plain["even_step_us"]);
  EXPECT_LT(interleaved["step_us"], plain["step_us"]);
  EXPECT_EQ(interleaved["stages"][5]["worker"], 1);
  EXPECT_NEAR(interleaved["bubble_share"].get<double>(),
              1 - interleaved["even_step_us"].get<double>() / interleaved["step_us"].get<double>(),
              1e-6);
  arguments.frontier = 3;
  const absl::StatusOr<std::string> svg = PlanSvg(*MakePlan(arguments));
  ASSERT_TRUE(svg.ok()) << svg.status();
  EXPECT_THAT(*svg, HasSubstr(">worker 3<"));
  EXPECT_THAT(*svg, Not(HasSubstr(">worker 4<")));
  EXPECT_THAT(*svg, ContainsRegex(">layers 0-[0-9]+, all frozen; "));
  EXPECT_THAT(*svg, HasSubstr(">3B0<"));
}

TEST_F(PlanCommandTest, WorkersThatShareCoresAreNoFasterThanTheCores) {
  PlanArguments arguments = Arguments(Layers(16), 4);
  const double alone = Result(arguments)["floor_us"].get<double>();
  arguments.cores = 2;
  const Json shared = Result(arguments);
  EXPECT_DOUBLE_EQ(shared["floor_us"].get<double>(), 2 * alone);
  EXPECT_GE(shared["step_us"].get<double>(), 2 * alone);
  EXPECT_LT(shared["bubble_share"].get<double>(), 0.1);
  std::string text = PlanText(*MakePlan(arguments));
  std::replace(text.begin(), text.end(), '\n', ' ');
  EXPECT_THAT(text, HasSubstr("4 stages, 8 micro-batches, 0 of 16 layers frozen, 2 cores: cuts "));
  EXPECT_THAT(text, HasSubstr("cores idle"));
  EXPECT_THAT(text, HasSubstr("spread evenly over all cores."));
  EXPECT_THAT(PlanSvg(*MakePlan(arguments)).status().message(), HasSubstr("leave --cores out"));
}

TEST_F(PlanCommandTest, WrongOptionsAreNamed) {
  const PlanArguments good = Arguments(Layers(6), 2);
  const std::pair<std::function<void(PlanArguments&)>, const char*> kBroken[] = {
      {[](PlanArguments& a) { a.stages = 7; }, "--stages is 7, not in 1..6: "},
      {[](PlanArguments& a) { a.stages = 0; }, "--stages is 0"},
      {[](PlanArguments& a) { a.microbatches = 0; }, "--microbatches is 0, not in 1..4096"},
      {[](PlanArguments& a) { a.frontier = 6; }, "--frontier is 6, not in 0..5: the last layer"},
      {[](PlanArguments& a) { a.frontier = -1; }, "--frontier is -1"},
      {[](PlanArguments& a) { a.stages_per_worker = 2; },
       "--schedule 1f1b runs one stage on each worker, but --stages-per-worker is 2; give 1, or "
       "--schedule interleaved_1f1b"},
      {[](PlanArguments& a) { a.schedule = "interleaved_1f1b"; },
       "runs two or more stages on each worker, but --stages-per-worker is 1; give at least 2, or "
       "--schedule gpipe or 1f1b"},
      {[](PlanArguments& a) { a.stages = 3, a.stages_per_worker = 2; }, "not a multiple of"},
      {[](PlanArguments& a) { a.cores = -1; }, "--cores is -1"},
      {[](PlanArguments& a) { a.schedule = "1f1"; }, "did you mean \"1f1b\"?"},
      {[](PlanArguments& a) { a.memory_limit_bytes = -1; }, "--memory-limit-bytes is -1"},
      {[](PlanArguments& a) { a.costs_path += "x"; }, "costs.jsonx"},
  };
  for (const auto& [breaks, want] : kBroken) {
    PlanArguments arguments = good;
    breaks(arguments);
    EXPECT_THAT(MakePlan(arguments).status().message(), HasSubstr(want));
    EXPECT_EQ(PlanCommand(arguments), kExitUsage) << want;
  }
  Json costs = Layers(6);
  costs["worker_speed"] = {1, 1, 1};
  EXPECT_TRUE(MakePlan(Arguments(costs, 2)).ok());
  costs["worker_speed"] = {1, 1, 2};
  EXPECT_THAT(MakePlan(Arguments(costs, 2)).status().message(),
              HasSubstr("worker_speed has 3 entries, but there are 2 workers"));
}

}  // namespace
}  // namespace smartpipe
