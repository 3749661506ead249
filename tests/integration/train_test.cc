// Whole runs of real processes: launcher, freeze service and stage workers over gRPC and Gloo.
#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/integration/train_harness.h"

namespace smartpipe {
namespace {

using ::testing::HasSubstr;
using testutil::TrainRun;

nlohmann::json Finish(TrainRun& run) {
  EXPECT_EQ(run.Wait(), 0) << run.process().output();
  return run.Summary();
}

TEST(TrainTest, SummaryAndRunDirectoryKeepTheContract) {
  TrainRun run({});
  const nlohmann::json summary = Finish(run);
  for (const char* key :
       {"steps", "epochs", "num_layers", "num_stages", "frozen_layers", "rebalances",
        "layers_moved", "test_accuracy", "train_loss", "wall_seconds", "total_seconds",
        "samples_per_second", "weights_sha256", "decisions"}) {
    EXPECT_TRUE(summary.contains(key)) << key << " is missing in " << summary;
  }
  EXPECT_EQ(summary["steps"], 16);
  EXPECT_EQ(summary["num_layers"], 7);
  EXPECT_EQ(summary["num_stages"], 2);
  EXPECT_EQ(summary["frozen_layers"], 0);
  EXPECT_GT(summary["test_accuracy"], 0.0);
  EXPECT_LE(summary["test_accuracy"], 1.0);
  EXPECT_GT(summary["wall_seconds"], 0.0);
  EXPECT_EQ(summary["weights_sha256"].get<std::string>().size(), 64u);
  for (const char* name :
       {"config.toml", "decisions.db", "decisions.jsonl", "metrics.jsonl", "model.safetensors"}) {
    EXPECT_FALSE(testutil::ReadFile(run.run_dir() + "/" + name).empty()) << name;
  }
}

TEST(TrainTest, WeightsDoNotDependOnStagesScheduleAndCuts) {
  std::string expected;
  for (const char* schedule : {"gpipe", "1f1b"}) {
    for (int stages = 1; stages <= 4; ++stages) {
      TrainRun run(
          {absl::StrCat("pipeline.stages=", stages), absl::StrCat("pipeline.schedule=", schedule)});
      const std::string digest = Finish(run)["weights_sha256"];
      if (expected.empty()) expected = digest;
      EXPECT_EQ(digest, expected) << schedule << ", " << stages << " stages";
    }
  }
}

TEST(TrainTest, ForcedFreezeAndRebalanceChangeNoByte) {
  // Long enough that moving is worth its cost at any speed of the machine.
  const std::vector<std::string> freeze = {"train.epochs=8", "eval.every_epochs=0",
                                           "freeze.policy=schedule",
                                           "freeze.schedule=[[4,2],[8,3],[12,5]]"};
  std::string expected;
  for (int stages = 1; stages <= 3; ++stages) {
    std::vector<std::string> sets = freeze;
    sets.push_back(absl::StrCat("pipeline.stages=", stages));
    sets.push_back("rebalance.min_gain=0");
    if (stages == 2) sets.push_back("pipeline.cuts=[6]");  // so bad a start that layers must move
    if (stages == 3) sets.push_back("pipeline.cuts=[5, 6]");
    TrainRun run(sets);
    const nlohmann::json summary = Finish(run);
    if (expected.empty()) expected = summary["weights_sha256"];
    EXPECT_EQ(summary["weights_sha256"], expected) << stages << " stages";
    EXPECT_EQ(summary["frozen_layers"], 5);
    EXPECT_EQ(summary["layers_moved"] > 0, stages > 1);
    testutil::Process replay({testutil::Binary("smartpipe"), "replay", run.run_dir()});
    EXPECT_EQ(replay.Wait(absl::Seconds(30)), 0) << replay.output();
    std::vector<std::pair<int, int>> frontiers;
    int last = 0;
    for (const nlohmann::json& decision : summary["decisions"]) {
      const int frontier = decision["frontier"];
      if (frontier != last) frontiers.emplace_back(decision["step"].get<int>(), frontier);
      last = frontier;
    }
    EXPECT_THAT(frontiers,
                ::testing::ElementsAre(std::pair(4, 2), std::pair(8, 3), std::pair(12, 5)));
  }
}

TEST(TrainTest, TheSameSeedFreezesTheSameLayersAtTheSameSteps) {
  auto frontiers = [](const nlohmann::json& summary) {
    std::vector<std::pair<int, int>> all;
    for (const nlohmann::json& decision : summary["decisions"]) {
      if (!all.empty() && all.back().second == decision["frontier"])
        continue;  // cuts alone may differ between runs
      all.emplace_back(decision["step"].get<int>(), decision["frontier"].get<int>());
    }
    return all;
  };
  const std::vector<std::string> sets = {"freeze.policy=smartpipe", "freeze.interval_steps=2",
                                         "freeze.warmup_intervals=1", "freeze.tau=2.0"};
  TrainRun one(sets);
  const nlohmann::json first = Finish(one);
  EXPECT_GT(first["frozen_layers"], 0) << "tau is chosen so that something freezes";
  std::vector<std::string> three = sets;
  three.push_back("pipeline.stages=3");
  TrainRun two(three);
  const nlohmann::json second = Finish(two);
  EXPECT_EQ(frontiers(first), frontiers(second));
  EXPECT_EQ(first["weights_sha256"], second["weights_sha256"]);
}

TEST(TrainTest, StartsFromAWeightsFile) {
  TrainRun first({});
  Finish(first);
  const std::string weights = first.run_dir() + "/model.safetensors";
  TrainRun more({"model.weights=\"" + weights + "\""});
  EXPECT_NE(Finish(more)["weights_sha256"], first.Summary()["weights_sha256"]);
  TrainRun wrong({"model.weights=\"" + weights + "\"", "model.name=resnet18"});
  EXPECT_NE(wrong.Wait(), 0);
  EXPECT_THAT(wrong.process().output(), HasSubstr("model.safetensors"));
  std::string bytes = testutil::ReadFile(weights);
  bytes.replace(bytes.size() - 4, 4, std::string("\0\0\xc0\x7f", 4));  // the last number: NaN
  testutil::WriteFile(weights, bytes);
  TrainRun nan({"model.weights=\"" + weights + "\""});
  EXPECT_NE(nan.Wait(), 0);
  EXPECT_THAT(nan.process().output(), HasSubstr("holds NaN or infinity"));
}

}  // namespace
}  // namespace smartpipe
