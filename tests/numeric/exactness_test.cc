// The result does not depend on the number of stages, the schedule or the cuts, bit for bit.
#include <algorithm>
#include <random>
#include <set>

#include "ATen/CPUGeneratorImpl.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/numeric/rank_threads.h"
#include "tests/numeric/reference.h"
#include "tests/testutil/seed.h"
#include "worker/data/dataset.h"
#include "worker/model/model.h"

namespace smartpipe {
namespace {

using ::testing::ElementsAreArray;

constexpr int64_t kNumSteps = 6;
constexpr int64_t kInterval = 2;

RunConfig SmallConfig() {
  RunConfig config;
  config.train = {
      .epochs = 1, .batch_size = 8, .microbatches = 4, .seed = 7, .max_steps = kNumSteps};
  config.optim = {.name = "sgd", .lr = 0.05, .momentum = 0.9, .weight_decay = 1e-4};
  config.data = {.name = "fashion_mnist", .path = "", .limit_train = 48, .limit_test = 20};
  config.eval.every_epochs = 0;
  return config;
}

std::string Show(const std::vector<int64_t>& cuts) {
  return absl::StrCat("cuts [", absl::StrJoin(cuts, ","), "]");
}

/// All ways to cut `num_layers` layers into `num_stages` stages.
std::vector<std::vector<int64_t>> AllCuts(int64_t num_layers, int64_t num_stages) {
  std::vector<std::vector<int64_t>> all;
  std::vector<bool> chosen(num_layers - 1, false);
  std::fill(chosen.begin(), chosen.begin() + (num_stages - 1), true);
  do {
    std::vector<int64_t> cuts;
    for (int64_t i = 0; i + 1 < num_layers; ++i) {
      if (chosen[i]) cuts.push_back(i + 1);
    }
    all.push_back(std::move(cuts));
  } while (std::prev_permutation(chosen.begin(), chosen.end()));
  return all;
}

/// Every cut for 2 stages, up to 20 seeded ones for 3 and 4.
std::vector<std::vector<int64_t>> CutsToTry(int64_t num_layers, int64_t num_stages) {
  std::vector<std::vector<int64_t>> all = AllCuts(num_layers, num_stages);
  if (num_stages <= 2) return all;
  std::mt19937_64 random(testutil::TestSeed());
  std::shuffle(all.begin(), all.end(), random);
  if (all.size() > 20) all.resize(20);
  return all;
}

class ExactnessTest : public ::testing::Test {
 protected:
  void Use(const RunConfig& config, const std::string& model) {
    options_.config = config;
    dataset_ = OpenDataset(config).value();
    model_ = MakeModel(model, dataset_->sample_shape(), dataset_->num_classes()).value();
    options_.model = model_.get();
    options_.dataset = dataset_.get();
    options_.num_steps = config.train.max_steps;
    options_.interval_steps = kInterval;
  }
  ReferenceResult Reference(const std::vector<std::pair<int64_t, int64_t>>& freezes = {}) {
    return TrainReference(options_.config, *model_, *dataset_, options_.num_steps, freezes);
  }
  void ExpectSame(const ReferenceResult& reference, const std::string& what) {
    SCOPED_TRACE(what);
    absl::StatusOr<RankThreadsResult> result = TrainOnThreads(options_);
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_EQ(result->weights_sha256, reference.weights_sha256);
    EXPECT_THAT(result->losses, ElementsAreArray(reference.losses));
  }

  std::unique_ptr<Dataset> dataset_;
  std::unique_ptr<ModelSpec> model_;
  RankThreadsOptions options_;
};

TEST_F(ExactnessTest, FullTrainingIsTheSameForAllStagesSchedulesAndCuts) {
  Use(SmallConfig(), "convnet");
  const ReferenceResult reference = Reference();
  for (const char* schedule : {"gpipe", "1f1b"}) {
    options_.config.pipeline.schedule = schedule;
    for (int64_t stages = 1; stages <= 4; ++stages) {
      for (const std::vector<int64_t>& cuts : CutsToTry(model_->num_layers(), stages)) {
        options_.plans = {{.step = 0, .frontier = 0, .cuts = cuts}};
        ExpectSame(reference, absl::StrCat(schedule, " ", Show(cuts)));
      }
    }
  }
}

TEST_F(ExactnessTest, ForcedFreezingIsTheSameForAllStagesSchedulesAndCuts) {
  Use(SmallConfig(), "convnet");
  const ReferenceResult reference = Reference({{2, 2}, {4, 5}});
  for (int64_t layer = 0; layer < 5; ++layer) {
    EXPECT_EQ(reference.layer_sha256[layer], reference.frozen_sha256[layer])
        << "frozen layer " << layer << " changed";
  }
  EXPECT_NE(reference.weights_sha256, Reference().weights_sha256);
  for (const char* schedule : {"gpipe", "1f1b"}) {
    options_.config.pipeline.schedule = schedule;
    for (int64_t stages = 1; stages <= 4; ++stages) {
      for (const std::vector<int64_t>& cuts : CutsToTry(model_->num_layers(), stages)) {
        options_.plans = {{.step = 0, .frontier = 0, .cuts = cuts},
                          {.step = 2, .frontier = 2, .cuts = cuts},
                          {.step = 4, .frontier = 5, .cuts = cuts}};
        ExpectSame(reference, absl::StrCat(schedule, " ", Show(cuts)));
      }
    }
  }
}

TEST_F(ExactnessTest, InterleavedStagesAreTheSameWithFreezingAndRebalancing) {
  Use(SmallConfig(), "convnet");
  options_.config.pipeline.schedule = "interleaved_1f1b";
  const ReferenceResult full = Reference(), freezing = Reference({{2, 2}, {4, 5}});
  std::mt19937_64 random(testutil::TestSeed());
  for (const auto& [stages, each] :
       std::vector<std::pair<int64_t, int64_t>>{{2, 2}, {4, 2}, {6, 2}, {6, 3}}) {
    options_.config.pipeline.stages_per_worker = each;
    const std::vector<std::vector<int64_t>> all = AllCuts(model_->num_layers(), stages);
    for (int round = 0; round < 4; ++round) {
      auto any = [&] { return all[random() % all.size()]; };
      const std::vector<int64_t> cuts = any();
      options_.plans = {{.step = 0, .frontier = 0, .cuts = cuts}};
      ExpectSame(full, absl::StrCat(each, " per worker, ", Show(cuts)));
      options_.plans = {{.step = 0, .frontier = 0, .cuts = cuts},
                        {.step = 2, .frontier = 2, .cuts = any()},
                        {.step = 4, .frontier = 5, .cuts = any()}};
      ExpectSame(freezing,
                 absl::StrCat(each, " per worker, freezing, ", Show(cuts), " -> ",
                              Show(options_.plans[1].cuts), " -> ", Show(options_.plans[2].cuts)));
    }
  }
}

TEST_F(ExactnessTest, RunAheadChangesNoByte) {
  Use(SmallConfig(), "convnet");
  const ReferenceResult reference = Reference({{2, 3}, {4, 6}});
  for (const bool run_ahead : {true, false}) {
    for (const char* schedule : {"gpipe", "1f1b"}) {
      options_.config.pipeline.run_ahead = run_ahead;
      options_.config.pipeline.schedule = schedule;
      options_.plans = {{.step = 0, .frontier = 0, .cuts = {2, 4}},
                        {.step = 2, .frontier = 3, .cuts = {2, 4}},
                        {.step = 4, .frontier = 6, .cuts = {2, 4}}};
      ExpectSame(reference, absl::StrCat(schedule, run_ahead ? ", run-ahead" : ""));
    }
  }
}

TEST_F(ExactnessTest, RebalancingInMidRunChangesNoByte) {
  for (const char* optimizer : {"sgd", "adamw"}) {
    RunConfig config = SmallConfig();
    config.optim.name = optimizer;
    config.optim.lr = optimizer == std::string("sgd") ? 0.05 : 1e-3;
    config.freeze.statistic = "corrected";
    Use(config, "convnet");
    std::mt19937_64 random(testutil::TestSeed());
    for (bool freeze : {false, true}) {
      const ReferenceResult reference = freeze ? Reference({{2, 1}, {4, 3}}) : Reference();
      for (int64_t stages = 2; stages <= 4; ++stages) {
        const std::vector<std::vector<int64_t>> all = AllCuts(model_->num_layers(), stages);
        for (int round = 0; round < 4; ++round) {
          auto any = [&] { return all[random() % all.size()]; };
          options_.plans = {{.step = 0, .frontier = 0, .cuts = any()},
                            {.step = 2, .frontier = freeze ? 1 : 0, .cuts = any()},
                            {.step = 4, .frontier = freeze ? 3 : 0, .cuts = any()}};
          ExpectSame(reference, absl::StrCat(optimizer, " ", freeze ? "freezing " : "",
                                             Show(options_.plans[0].cuts), " -> ",
                                             Show(options_.plans[1].cuts), " -> ",
                                             Show(options_.plans[2].cuts)));
        }
      }
    }
  }
}

TEST_F(ExactnessTest, UnfreezingIsTheSameForAllStagesSchedulesAndCuts) {
  RunConfig config = SmallConfig();
  config.train.max_steps = 10;
  config.data.limit_train = 80;
  Use(config, "convnet");
  // Frozen, let go in two steps, frozen again; with and without moves.
  const ReferenceResult reference = Reference({{2, 4}, {4, 2}, {6, 0}, {8, 3}});
  EXPECT_NE(reference.weights_sha256, Reference({{2, 4}, {8, 4}}).weights_sha256);
  std::mt19937_64 random(testutil::TestSeed());
  for (const char* schedule : {"gpipe", "1f1b"}) {
    options_.config.pipeline.schedule = schedule;
    for (int64_t stages = 1; stages <= 4; ++stages) {
      const std::vector<std::vector<int64_t>> all = AllCuts(model_->num_layers(), stages);
      for (int round = 0; round < 6; ++round) {
        const std::vector<int64_t> cuts = all[random() % all.size()];
        auto next = [&] { return round % 2 == 0 ? cuts : all[random() % all.size()]; };
        options_.plans = {{.step = 0, .frontier = 0, .cuts = cuts},
                          {.step = 2, .frontier = 4, .cuts = next()},
                          {.step = 4, .frontier = 2, .cuts = next()},
                          {.step = 6, .frontier = 0, .cuts = next()},
                          {.step = 8, .frontier = 3, .cuts = next()}};
        std::string what = schedule;
        for (const PlanChange& plan : options_.plans) absl::StrAppend(&what, " ", Show(plan.cuts));
        ExpectSame(reference, what);
      }
    }
  }
}

TEST_F(ExactnessTest, StatisticsDoNotDependOnCutsOrMoves) {
  RunConfig config = SmallConfig();
  config.freeze.statistic = "corrected";
  Use(config, "convnet");
  auto statistics = [&](std::vector<PlanChange> plans) {
    options_.plans = std::move(plans);
    std::map<std::pair<int64_t, int32_t>, std::vector<double>> all;  // (interval, layer)
    RankThreadsResult result = TrainOnThreads(options_).value();
    for (const auto& reports : result.reports) {
      for (const IntervalReportInfo& report : reports) {
        for (const LayerReportInfo& layer : report.layers) {
          all[{report.interval.value(), layer.layer.value()}] = {
              layer.grad_norm_l2, layer.previous_grad_norm_l2, layer.grad_difference_norm_l2,
              layer.microbatch_grad_norm2_mean, static_cast<double>(layer.has_previous)};
        }
      }
    }
    return all;
  };
  const auto expected = statistics({{.step = 0, .frontier = 0, .cuts = {}}});
  EXPECT_EQ(expected.size(), 3u * 7u);
  EXPECT_GT((expected.at({1, 3})[2]), 0);
  EXPECT_EQ(statistics({{.step = 0, .frontier = 0, .cuts = {3}}}), expected);
  EXPECT_EQ(statistics({{.step = 0, .frontier = 0, .cuts = {2, 3}},
                        {.step = 2, .frontier = 0, .cuts = {4, 6}},
                        {.step = 4, .frontier = 0, .cuts = {1, 2}}}),
            expected);
}

TEST_F(ExactnessTest, EvaluationDoesNotDependOnCuts) {
  RunConfig config = SmallConfig();
  config.eval.every_epochs = 1;
  config.data.limit_test = 270;  // one full batch of the evaluation pass and a rest
  Use(config, "convnet");
  options_.plans = {{.step = 0, .frontier = 0, .cuts = {}}};
  const RankThreadsResult one = TrainOnThreads(options_).value();
  options_.plans = {{.step = 0, .frontier = 0, .cuts = {2, 5}}};
  const RankThreadsResult three = TrainOnThreads(options_).value();
  ASSERT_EQ(one.evaluations.size(), 1u);
  ASSERT_EQ(three.evaluations.size(), 1u);
  EXPECT_EQ(one.evaluations[0].accuracy, three.evaluations[0].accuracy);
  EXPECT_EQ(one.evaluations[0].loss, three.evaluations[0].loss);
}

TEST_F(ExactnessTest, GlooGivesTheSameBytes) {
  Use(SmallConfig(), "convnet");
  options_.gloo = true;
  const ReferenceResult reference = Reference({{2, 1}, {4, 4}});
  for (const char* schedule : {"gpipe", "1f1b"}) {
    options_.config.pipeline.schedule = schedule;
    options_.plans = {{.step = 0, .frontier = 0, .cuts = {3, 5}},
                      {.step = 2, .frontier = 1, .cuts = {4, 6}},
                      {.step = 4, .frontier = 4, .cuts = {4, 6}}};
    ExpectSame(reference, schedule);
  }
}

TEST_F(ExactnessTest, OtherModelsAreExactToo) {
  for (const char* name : {"resnet18", "blocknet"}) {
    RunConfig config = SmallConfig();
    config.train.max_steps = 4;
    if (name == std::string("blocknet"))
      config.data = {.name = "synthetic", .path = "", .limit_train = 32, .limit_test = 8};
    Use(config, name);
    const ReferenceResult reference = Reference({{2, 3}});
    for (const std::vector<int64_t>& cuts :
         {std::vector<int64_t>{4}, std::vector<int64_t>{1, 5, 9}}) {
      options_.plans = {{.step = 0, .frontier = 0, .cuts = cuts},
                        {.step = 2, .frontier = 3, .cuts = cuts}};
      ExpectSame(reference, absl::StrCat(name, " ", Show(cuts)));
    }
  }
}

TEST_F(ExactnessTest, NothingDrawsFromTheDefaultGenerator) {
  Use(SmallConfig(), "convnet");
  options_.plans = {{.step = 0, .frontier = 0, .cuts = {3}}};
  at::Generator generator = at::detail::getDefaultCPUGenerator();
  generator.set_current_seed(1);
  const std::string one = TrainOnThreads(options_).value().weights_sha256;
  generator.set_current_seed(2);
  const at::Tensor before = generator.get_state().clone();
  EXPECT_EQ(TrainOnThreads(options_).value().weights_sha256, one);
  EXPECT_TRUE(before.equal(generator.get_state()));
}

}  // namespace
}  // namespace smartpipe
