// Checkpoints of whole runs: where they lie, what they share, and that they change no byte.
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/integration/train_harness.h"

namespace smartpipe {
namespace {

using testing::ElementsAre;
using testutil::TrainRun;

/// 32 steps; layers 0 and 1 are frozen from step 8 on, 2 and 3 from step 16 on.
std::vector<std::string> Sets(const std::vector<std::string>& more) {
  std::vector<std::string> sets = {"train.epochs=2", "freeze.policy=schedule",
                                   "freeze.schedule=[[8,2],[16,4]]"};
  sets.insert(sets.end(), more.begin(), more.end());
  return sets;
}

nlohmann::json Finish(TrainRun& run) {
  EXPECT_EQ(run.Wait(), 0) << run.process().output();
  return run.Summary();
}

/// As `smartpipe checkpoints --json` tells them.
nlohmann::json Checkpoints(const TrainRun& run) {
  testutil::Process process(
      {testutil::Binary("smartpipe"), "checkpoints", run.run_dir(), "--json"});
  EXPECT_EQ(process.Wait(absl::Seconds(30)), 0) << process.output();
  return nlohmann::json::parse(process.output(), nullptr, false)["checkpoints"];
}

std::vector<int64_t> CompleteSteps(const nlohmann::json& checkpoints) {
  std::vector<int64_t> steps;
  for (const nlohmann::json& checkpoint : checkpoints) {
    EXPECT_EQ(checkpoint["complete"], true) << checkpoint;
    EXPECT_EQ(checkpoint["num_layers"], 7);
    steps.push_back(checkpoint["step"]);
  }
  return steps;
}

TEST(CheckpointTest, AreTakenWhenTheyAreDueAndShareFrozenLayers) {
  TrainRun run(Sets({"checkpoint.every_steps=10", "checkpoint.keep_last=10"}));
  const nlohmann::json summary = Finish(run);
  const nlohmann::json checkpoints = Checkpoints(run);
  EXPECT_THAT(CompleteSteps(checkpoints), ElementsAre(10, 20, 30, 32));
  int64_t new_bytes = 0, shared_bytes = 0;
  for (const nlohmann::json& checkpoint : checkpoints) {
    new_bytes += checkpoint["new_bytes"].get<int64_t>();
    shared_bytes += checkpoint["shared_bytes"].get<int64_t>();
  }
  EXPECT_EQ(summary["checkpoint_bytes_written"], new_bytes);
  EXPECT_EQ(summary["checkpoint_bytes_shared"], shared_bytes);
  EXPECT_GT(summary["checkpoint_seconds"], 0.0);
  EXPECT_EQ(checkpoints[0]["shared_bytes"], 0);
  EXPECT_GT(checkpoints[1]["shared_bytes"], 0);  // layers 0 and 1
  EXPECT_GT(checkpoints[2]["shared_bytes"], checkpoints[1]["shared_bytes"]);
  EXPECT_EQ(checkpoints[3]["shared_bytes"], checkpoints[2]["shared_bytes"]);
  EXPECT_LT(checkpoints[2]["new_bytes"], checkpoints[0]["new_bytes"]);
}

TEST(CheckpointTest, ChangeNoByteAndDoNotDependOnTheStages) {
  TrainRun without(Sets({"checkpoint.every_steps=1000"}));
  const std::string weights = Finish(without)["weights_sha256"];
  EXPECT_THAT(CompleteSteps(Checkpoints(without)), ElementsAre(32));
  const std::string manifest = "/checkpoints/runs/run/manifests/";
  std::vector<std::string> expected;
  for (int stages = 1; stages <= 3; ++stages) {
    TrainRun run(Sets({absl::StrCat("pipeline.stages=", stages), "checkpoint.every_steps=1",
                       "checkpoint.keep_last=100"}));
    EXPECT_EQ(Finish(run)["weights_sha256"], weights) << stages << " stages";
    std::vector<std::string> manifests;
    for (int64_t step = 1; step <= 32; ++step) {
      manifests.push_back(testutil::ReadFile(absl::StrCat(run.run_dir(), manifest, step)));
      EXPECT_FALSE(manifests.back().empty()) << "step " << step;
    }
    if (expected.empty()) expected = manifests;
    EXPECT_EQ(manifests, expected) << stages << " stages";
  }
}

TEST(CheckpointTest, OnlyTheLastOnesAreKeptOnceAnEpochIfTheConfigIsSilent) {
  TrainRun run({"train.epochs=5"});
  Finish(run);
  EXPECT_THAT(CompleteSteps(Checkpoints(run)), ElementsAre(48, 64, 80));
}

TEST(CheckpointTest, ARunDirectoryOfAnyNameHasThem) {
  const testutil::TempDir dir;
  TrainRun run({}, dir.File("my run"));
  Finish(run);
  EXPECT_THAT(CompleteSteps(Checkpoints(run)), ElementsAre(16));
}

}  // namespace
}  // namespace smartpipe
