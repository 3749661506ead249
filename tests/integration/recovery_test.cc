// Whatever is killed, the run goes on by itself, or with --resume, and ends with the bytes of an
// undisturbed run.
#include <signal.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/integration/train_harness.h"

namespace smartpipe {
namespace {

using ::testing::Gt;
using ::testing::HasSubstr;
using testutil::TrainRun;

constexpr int64_t kSteps = 128;

/// Two epochs of 64 steps, boundaries each 8 steps, checkpoints each 12, some in the middle of an
/// interval. Layers freeze by their statistics, so a lost or doubled report would show.
std::vector<std::string> Sets(const std::vector<std::string>& more) {
  std::vector<std::string> sets = {
      "train.epochs=2",          "data.limit_train=1024",     "freeze.policy=smartpipe",
      "freeze.tau=0.3",          "freeze.warmup_intervals=1", "freeze.lambda_max=0.3",
      "freeze.interval_steps=8", "checkpoint.every_steps=12"};
  sets.insert(sets.end(), more.begin(), more.end());
  return sets;
}

/// Step and frontier of each decision that raised it.
std::vector<std::pair<int64_t, int64_t>> Freezes(const nlohmann::json& summary) {
  std::vector<std::pair<int64_t, int64_t>> freezes;
  for (const nlohmann::json& decision : summary["decisions"]) {
    const int64_t before = freezes.empty() ? 0 : freezes.back().second;
    if (decision["frontier"] > before) freezes.emplace_back(decision["step"], decision["frontier"]);
  }
  return freezes;
}

/// The results that a disturbed run must have, too.
const nlohmann::json& Undisturbed() {
  static const auto* const summary = [] {
    TrainRun run(Sets({}));
    EXPECT_EQ(run.Wait(), 0) << run.process().output();
    EXPECT_EQ(run.Summary()["recoveries"], 0);
    EXPECT_EQ(run.Summary()["generations"], 1);
    EXPECT_TRUE(run.Summary()["resumed_from_step"].is_null());
    EXPECT_FALSE(Freezes(run.Summary()).empty()) << run.Summary();
    return new nlohmann::json(run.Summary());
  }();
  return *summary;
}

/// Exit code 0, the same weights, losses, freezes; all steps told once; a log that proves itself.
void ExpectSameResult(TrainRun& run) {
  ASSERT_EQ(run.Wait(), 0) << run.process().output();
  const nlohmann::json summary = run.Summary(), &expected = Undisturbed();
  for (const char* key :
       {"weights_sha256", "test_accuracy", "train_loss", "steps", "frozen_layers"}) {
    EXPECT_EQ(summary[key], expected[key]) << key << "\n" << run.process().output();
  }
  EXPECT_EQ(Freezes(summary), Freezes(expected));
  std::vector<int64_t> steps, evaluations;
  for (const nlohmann::json& line : run.Lines("metrics.jsonl")) {
    if (line.contains("step")) steps.push_back(line["step"]);
    if (line.contains("evaluation")) evaluations.push_back(line["evaluation"]["step"]);
  }
  ASSERT_EQ(static_cast<int64_t>(steps.size()), kSteps);
  for (int64_t step = 0; step < kSteps; ++step) ASSERT_EQ(steps[step], step);
  EXPECT_EQ(evaluations, (std::vector<int64_t>{64, 128}));
  testutil::Process replay({testutil::Binary("smartpipe"), "replay", run.run_dir()});
  EXPECT_EQ(replay.Wait(absl::Seconds(60)), 0) << replay.output();
}

void KillAfter(TrainRun& run, int64_t num_steps, const std::string& child, int signal = SIGKILL) {
  ASSERT_TRUE(run.WaitForSteps(num_steps)) << run.process().output();
  const pid_t pid = run.Child(child);
  ASSERT_GT(pid, 0) << child << "\n" << run.process().output();
  kill(pid, signal);
}

TEST(RecoveryTest, AKilledWorkerIsReplacedAndTheRunGoesOn) {
  for (const auto& [worker, num_steps] :
       {std::pair("w0", 3), std::pair("w1", 30), std::pair("w0", 80)}) {
    TrainRun run(Sets({}));
    KillAfter(run, num_steps, absl::StrCat("--worker-id ", worker));
    ExpectSameResult(run);
    EXPECT_EQ(run.Summary()["recoveries"], 1);
    EXPECT_EQ(run.Summary()["generations"], 2);
    EXPECT_THAT(run.process().output(), HasSubstr("was killed by SIGKILL"));
    EXPECT_THAT(run.process().output(), HasSubstr("Generation 2 goes back to step"));
  }
}

TEST(RecoveryTest, AKilledFreezeServiceIsStartedAgainAndNothingIsTrainedTwice) {
  for (const int64_t num_steps : {1, 45}) {
    TrainRun run(Sets({}));
    KillAfter(run, num_steps, "freeze_service");
    ExpectSameResult(run);
    EXPECT_EQ(run.Summary()["recoveries"], 0);
  }
}

TEST(RecoveryTest, AKilledParameterServiceIsStartedAgain) {
  TrainRun run(Sets({}));
  KillAfter(run, 30, "parameter_service");
  ExpectSameResult(run);
  EXPECT_EQ(run.Summary()["recoveries"], 0);
}

TEST(RecoveryTest, AWorkerThatStandsStillIsReplaced) {
  TrainRun run(Sets({}));
  KillAfter(run, 30, "--worker-id w1", SIGSTOP);
  ExpectSameResult(run);
  EXPECT_EQ(run.Summary()["recoveries"], 1);
  EXPECT_THAT(run.process().output(), HasSubstr("w1 does not answer"));
}

TEST(RecoveryTest, AWatchdogSaysWhatItWaitsForAndTheRunGoesOn) {
  TrainRun run(Sets({"watchdog_s=2.0"}));
  KillAfter(run, 30, "--worker-id w1", SIGSTOP);
  ExpectSameResult(run);
  EXPECT_THAT(run.process().output(), HasSubstr("watchdog: nothing has moved for 2s"));
  const std::string dump = testutil::ReadFile(run.run_dir() + "/dumps/w0-generation-1.txt");
  EXPECT_THAT(dump, HasSubstr("worker w0, generation 1, rank 0 of 2"));
  EXPECT_THAT(dump, HasSubstr("(w1)")) << "it names whom it waits for";
  EXPECT_THAT(dump, HasSubstr("not sent: "));
  EXPECT_THAT(testutil::ReadFile(run.run_dir() + "/dumps/freeze_service-generation-1.txt"),
              HasSubstr("boundary 0 step 0"));
}

TEST(RecoveryTest, OneLossAfterAnother) {
  TrainRun run(Sets({"pipeline.stages=3"}));
  KillAfter(run, 15, "--worker-id w2");
  KillAfter(run, 50, "freeze_service");
  KillAfter(run, 70, "--worker-id w0");
  ExpectSameResult(run);
  EXPECT_EQ(run.Summary()["recoveries"], 2);
}

TEST(RecoveryTest, TooManyLossesEndTheRunClearly) {
  TrainRun run(Sets({"recovery.max_restarts=1", "train.epochs=100"}));
  KillAfter(run, 10, "--worker-id w0");
  ASSERT_TRUE(
      testutil::Eventually([&] { return run.Child("--worker-id w0") > 0; }, absl::Seconds(20)));
  KillAfter(run, 10, "--worker-id w1");
  EXPECT_EQ(run.Wait(), 1);
  EXPECT_THAT(run.process().output(), HasSubstr("max_restarts"));
}

TEST(ResumeTest, AfterEverythingWasKilledWithAnotherNumberOfStages) {
  testutil::TempDir dir;
  {
    TrainRun run(Sets({}), dir.File("run"));
    ASSERT_TRUE(run.WaitForSteps(70)) << run.process().output();
    run.process().Signal(SIGKILL);  // the kernel kills its children
    EXPECT_TRUE(run.process().Wait(absl::Seconds(10)).has_value());
  }
  TrainRun run(Sets({"pipeline.stages=3", "pipeline.schedule=gpipe"}), dir.File("run"), "auto");
  ExpectSameResult(run);
  EXPECT_EQ(run.Summary()["num_stages"], 3);
  EXPECT_THAT(run.Summary()["resumed_from_step"], Gt(0));
  // Once more: it has finished.
  TrainRun again(Sets({"pipeline.stages=3", "pipeline.schedule=gpipe"}), dir.File("run"), "auto");
  EXPECT_EQ(again.Wait(), 0);
  EXPECT_THAT(again.process().output(), HasSubstr("has finished before"));
  EXPECT_EQ(again.Summary()["weights_sha256"], Undisturbed()["weights_sha256"]);
}

TEST(ResumeTest, CtrlCStopsBehindACheckpoint) {
  testutil::TempDir dir;
  int64_t stopped_at = 0;
  {
    TrainRun run(Sets({}), dir.File("run"));
    ASSERT_TRUE(run.WaitForSteps(25)) << run.process().output();
    kill(-run.process().pid(), SIGINT);
    EXPECT_EQ(run.Wait(), 130) << run.process().output();
    EXPECT_THAT(run.process().output(), HasSubstr("Stopping at the next boundary"));
    EXPECT_THAT(run.process().output(), HasSubstr("The newest checkpoint is of step"));
    stopped_at = static_cast<int64_t>(run.Lines("metrics.jsonl").size());
    EXPECT_EQ(stopped_at % 8, 0);
  }
  TrainRun run(Sets({"pipeline.stages=1"}), dir.File("run"), "auto");
  ExpectSameResult(run);
  EXPECT_EQ(run.Summary()["resumed_from_step"], stopped_at);
}

TEST(ResumeTest, InAFolderThatWasRenamedAndNeverBesideARunThatGoesOn) {
  testutil::TempDir dir;
  {
    TrainRun run(Sets({}), dir.File("run"));
    ASSERT_TRUE(run.WaitForSteps(20)) << run.process().output();
    const std::string config = testutil::ReadFile(dir.File("run/config.toml"));
    TrainRun second(Sets({"pipeline.stages=4"}), dir.File("run"), "auto");
    EXPECT_EQ(second.Wait(), 2);
    EXPECT_THAT(second.process().output(), HasSubstr("is going on in another process"));
    EXPECT_EQ(testutil::ReadFile(dir.File("run/config.toml")), config);
    kill(run.process().pid(), SIGINT);
    EXPECT_EQ(run.Wait(), 130) << run.process().output();
  }
  std::filesystem::rename(dir.File("run"), dir.File("other"));
  TrainRun run(Sets({}), dir.File("other"), "auto");
  ExpectSameResult(run);
  EXPECT_THAT(run.Summary()["resumed_from_step"], Gt(0));
  TrainRun changed(Sets({"train.seed=12"}), dir.File("other"), "auto");
  EXPECT_EQ(changed.Wait(), 2);
  EXPECT_THAT(changed.process().output(), HasSubstr("train.seed = 11 was recorded"));
}

TEST(ResumeTest, FromAGivenStepAndOnlyFromOneThatIsThere) {
  testutil::TempDir dir;
  {
    TrainRun run(Sets({"checkpoint.keep_last=100"}), dir.File("run"));
    EXPECT_EQ(run.Wait(), 0) << run.process().output();
  }
  TrainRun nowhere(Sets({"checkpoint.keep_last=100"}), dir.File("run"), "13");
  EXPECT_EQ(nowhere.Wait(), 2);
  EXPECT_THAT(nowhere.process().output(), HasSubstr("no complete checkpoint of that step"));
  EXPECT_THAT(nowhere.process().output(), HasSubstr("12, 24, 36"));
  TrainRun run(Sets({"checkpoint.keep_last=100", "pipeline.stages=3"}), dir.File("run"), "36");
  ExpectSameResult(run);
  EXPECT_EQ(run.Summary()["resumed_from_step"], 36);
}

TEST(ResumeTest, MistakesAreNamedAndNothingIsStarted) {
  testutil::TempDir dir;
  {
    TrainRun run({"train.max_steps=4"}, dir.File("run"));
    EXPECT_EQ(run.Wait(), 0) << run.process().output();
  }
  struct Mistake {
    std::vector<std::string> sets;
    std::string run_dir, resume, words;
  };
  for (const Mistake& mistake :
       {Mistake{{"train.max_steps=4", "optim.lr=0.5"}, dir.File("run"), "4", "optim.lr = 0.05"},
        Mistake{{"train.max_steps=4"}, dir.File("run"), "never", "is not empty"},
        Mistake{{"train.max_steps=4"}, dir.File("run"), "sometimes", "never, auto or the step"},
        Mistake{{}, dir.File("nowhere"), "4", "holds no run to go on with"}}) {
    TrainRun run(mistake.sets, mistake.run_dir, mistake.resume);
    EXPECT_EQ(run.Wait(), 2) << run.process().output();
    EXPECT_THAT(run.process().output(), HasSubstr(mistake.words));
  }
}

}  // namespace
}  // namespace smartpipe
