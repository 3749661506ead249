// `smartpipe export` and `smartpipe eval` on real runs: finished, going on, dead, damaged.
#include <signal.h>

#include <filesystem>
#include <string>
#include <system_error>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/integration/train_harness.h"

namespace smartpipe {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testutil::TrainRun;

/// 32 steps; layers 0 and 1 are frozen from step 8 on.
std::vector<std::string> Sets(const std::vector<std::string>& more = {}) {
  std::vector<std::string> sets = {"train.epochs=2", "freeze.policy=schedule",
                                   "freeze.schedule=[[8,2]]", "checkpoint.every_steps=10"};
  sets.insert(sets.end(), more.begin(), more.end());
  return sets;
}

std::string Command(std::vector<std::string> words, int exit_code) {
  words.insert(words.begin(), testutil::Binary("smartpipe"));
  testutil::Process process(words);
  EXPECT_EQ(process.Wait(absl::Minutes(1)).value_or(-1), exit_code) << process.output();
  return process.output();
}

nlohmann::json JsonOf(std::vector<std::string> words) {
  words.push_back("--json");
  return nlohmann::json::parse(Command(words, 0), nullptr, false);
}

/// One finished run for the tests that only read it.
class FinishedRunTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    run_ = new TrainRun(Sets());
    ASSERT_EQ(run_->Wait(), 0) << run_->process().output();
  }
  static void TearDownTestSuite() {
    delete run_;
    run_ = nullptr;
  }
  static std::string RunFile(const std::string& name) { return run_->run_dir() + "/" + name; }
  /// As the training's own evaluation told it.
  static nlohmann::json Evaluation(int64_t step) {
    for (const nlohmann::json& line : run_->Lines("metrics.jsonl")) {
      if (line.contains("evaluation") && line["evaluation"]["step"] == step)
        return line["evaluation"];
    }
    ADD_FAILURE() << "no evaluation of step " << step;
    return {};
  }

  static TrainRun* run_;
  const testutil::TempDir dir_;
  const std::string output_ = dir_.File("out.safetensors");
};
TrainRun* FinishedRunTest::run_ = nullptr;

TEST_F(FinishedRunTest, TheLastCheckpointIsExportedByteForByte) {
  const nlohmann::json exported = JsonOf({"export", run_->run_dir(), "-o", output_});
  const std::string bytes = testutil::ReadFile(output_);
  ASSERT_FALSE(bytes.empty());
  EXPECT_EQ(bytes, testutil::ReadFile(RunFile("model.safetensors")));
  EXPECT_EQ(exported["weights_sha256"], run_->Summary()["weights_sha256"]);
  EXPECT_EQ(exported["step"], 32);
  EXPECT_EQ(exported["output"], output_);
}

TEST_F(FinishedRunTest, AnEarlierStepHasOtherWeightsAndEvaluatesAsAFile) {
  const nlohmann::json exported =
      JsonOf({"export", run_->run_dir(), "--step", "20", "-o", output_});
  EXPECT_EQ(exported["step"], 20);
  EXPECT_NE(exported["weights_sha256"], run_->Summary()["weights_sha256"]);
  const nlohmann::json of_run = JsonOf({"eval", run_->run_dir(), "--step", "20"});
  nlohmann::json of_file = JsonOf({"eval", output_, "--config", RunFile("config.toml")});
  EXPECT_EQ(of_run["weights_sha256"], exported["weights_sha256"]);
  EXPECT_TRUE(of_file["step"].is_null());
  of_file["step"] = 20;
  EXPECT_EQ(of_file, of_run);
}

TEST_F(FinishedRunTest, TheLastStepScoresAsInTraining) {
  const nlohmann::json score = JsonOf({"eval", run_->run_dir()});
  const nlohmann::json summary = run_->Summary();
  EXPECT_EQ(score["step"], 32);
  EXPECT_EQ(score["test_accuracy"], summary["test_accuracy"]);
  EXPECT_EQ(score["test_loss"], Evaluation(32)["loss"]);
  EXPECT_EQ(score["num_samples"], 100);
  EXPECT_EQ(score["weights_sha256"], summary["weights_sha256"]);
  EXPECT_THAT(Command({"eval", run_->run_dir()}, 0),
              AllOf(HasSubstr("(step 32): test accuracy "), HasSubstr("100 samples")));
}

TEST_F(FinishedRunTest, MistakesAreNamed) {
  EXPECT_THAT(Command({"export", run_->run_dir(), "--step", "7", "-o", output_}, 2),
              HasSubstr("no checkpoint of step 7; those of steps 20, 30 and 32 are complete"));
  EXPECT_THAT(Command({"eval", run_->run_dir(), "--step", "7"}, 2),
              HasSubstr("steps 20, 30 and 32"));
  EXPECT_THAT(Command({"eval", run_->run_dir(), "--step=-1"}, 2), HasSubstr("--step is -1"));
  EXPECT_THAT(Command({"export", run_->run_dir(), "-o", dir_.File("no/x")}, 2),
              HasSubstr("does not exist; make it first"));
  EXPECT_THAT(Command({"export", run_->run_dir(), "-o", dir_.path()}, 2),
              HasSubstr("is a folder, not a file"));
  EXPECT_THAT(Command({"export", dir_.path(), "-o", output_}, 2),
              HasSubstr("is no run directory with checkpoints"));
  EXPECT_THAT(Command({"eval", RunFile("model.safetensors")}, 2),
              HasSubstr("give the config of its training by --config"));
  EXPECT_THAT(Command({"eval", dir_.File("none")}, 2), HasSubstr("is not there"));
  EXPECT_FALSE(std::filesystem::exists(output_));
}

TEST_F(FinishedRunTest, WeightsOfAnotherModelAndHostileFilesAreRefused) {
  const std::string weights = RunFile("model.safetensors"), config = dir_.File("other.toml");
  testutil::WriteFile(config, "[model]\nname = \"resnet18\"\n[data]\nlimit_test = 10\n");
  for (const std::string& source : {weights, run_->run_dir()}) {
    EXPECT_THAT(Command({"eval", source, "--config", config}, 2),
                AllOf(HasSubstr("smartpipe: " + source +
                                ": the weights lack \"conv1.weight\", which "
                                "model \"resnet18\" of " +
                                config + " has; evaluate with")));
  }
  testutil::WriteFile(config, "[model]\nnam = \"resnet18\"\n");
  EXPECT_THAT(Command({"eval", weights, "--config", config}, 2),
              AllOf(HasSubstr("other.toml:2: "), HasSubstr("model.name")));
  const std::string hostile = dir_.File("hostile.safetensors");
  for (const std::string& bytes : {std::string(), std::string("\xff\xff\xff\xff\xff\xff\xff\x7f{}"),
                                   testutil::ReadFile(weights).substr(0, 5000)}) {
    testutil::WriteFile(hostile, bytes);
    EXPECT_THAT(Command({"eval", hostile, "--config", RunFile("config.toml")}, 1),
                AllOf(HasSubstr(hostile), HasSubstr("damaged or no safetensors file")));
  }
}

TEST(RunWeightsTest, WhileTheRunGoesOnAndAfterItDied) {
  TrainRun run({"train.epochs=1000", "checkpoint.every_steps=1", "checkpoint.keep_last=1",
                "eval.every_epochs=0"});
  const testutil::TempDir dir;
  ASSERT_TRUE(run.WaitForSteps(20));
  const std::string manifests = run.run_dir() + "/checkpoints/runs/run/manifests";
  ASSERT_TRUE(testutil::Eventually(
      [&] {
        std::error_code error;
        return std::filesystem::exists(manifests, error) &&
               !std::filesystem::is_empty(manifests, error);
      },
      absl::Seconds(60)));
  int64_t step = 0;
  for (int i = 0; i < 5; ++i) {
    const nlohmann::json exported =
        JsonOf({"export", run.run_dir(), "-o", dir.File("live.safetensors")});
    EXPECT_GE(exported["step"], step);
    step = exported["step"];
  }
  ASSERT_EQ(run.process().Wait(absl::ZeroDuration()), std::nullopt);
  run.process().Signal(SIGKILL);
  run.Wait();
  const nlohmann::json exported =
      JsonOf({"export", run.run_dir(), "-o", dir.File("dead.safetensors")});
  const nlohmann::json score = JsonOf({"eval", run.run_dir()});
  EXPECT_GE(exported["step"], step);
  EXPECT_EQ(score["step"], exported["step"]);
  EXPECT_EQ(score["weights_sha256"], exported["weights_sha256"]);
}

TEST(RunWeightsTest, BeforeTheFirstCheckpointAndWithADamagedOne) {
  TrainRun run(Sets());
  ASSERT_EQ(run.Wait(), 0) << run.process().output();
  const testutil::TempDir dir;
  for (const auto& entry :
       std::filesystem::recursive_directory_iterator(run.run_dir() + "/checkpoints/blobs")) {
    if (entry.is_regular_file()) testutil::WriteFile(entry.path(), "damaged");
  }
  EXPECT_THAT(Command({"export", run.run_dir(), "-o", dir.File("x")}, 1),
              AllOf(HasSubstr("layer 0 (\"conv1\") of the checkpoint of step 32"),
                    HasSubstr("it has 7 bytes, not "), HasSubstr("another step")));
  std::filesystem::remove_all(run.run_dir() + "/checkpoints/runs/run/manifests");
  EXPECT_THAT(Command({"eval", run.run_dir()}, 1), HasSubstr("no complete checkpoint yet"));
}

}  // namespace
}  // namespace smartpipe
