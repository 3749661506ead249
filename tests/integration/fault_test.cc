// Faults without recovery: whoever dies, everybody ends within 10 s with one clear message, and
// nothing is left behind.
#include <signal.h>

#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/integration/train_harness.h"
#include "tests/testutil/seed.h"

namespace smartpipe {
namespace {

using ::testing::HasSubstr;
using testutil::ChildInfo;
using testutil::TrainRun;

constexpr absl::Duration kEndWithin = absl::Seconds(10);

/// A run that lasts much longer than the test waits.
std::vector<std::string> LongRun(int stages) {
  return {absl::StrCat("pipeline.stages=", stages), "train.epochs=1000", "eval.every_epochs=0",
          "recovery.enabled=false", "decision_timeout_s=2"};
}

std::vector<ChildInfo> ChildrenOnceTraining(TrainRun& run, int64_t num_steps) {
  EXPECT_TRUE(run.WaitForSteps(num_steps)) << run.process().output();
  return testutil::ChildrenOf(run.process().pid());
}

void ExpectAllGone(const std::vector<ChildInfo>& children) {
  for (const ChildInfo& child : children) {
    EXPECT_TRUE(testutil::Eventually([&] { return !testutil::IsAlive(child.pid); }, kEndWithin))
        << "left behind: " << child.command_line;
  }
}

/// Steps to wait before the blow: seeded, so that a failure can be repeated.
int64_t RandomSteps() {
  static std::mt19937_64 random(testutil::TestSeed());
  return static_cast<int64_t>(random() % 12) + 1;
}

TEST(FaultTest, AKilledWorkerEndsTheRunAndIsNamed) {
  for (const char* victim : {"w0", "w2"}) {
    TrainRun run(LongRun(3));
    const std::vector<ChildInfo> children = ChildrenOnceTraining(run, RandomSteps());
    ASSERT_EQ(children.size(), 5u) << "two services and three workers";
    kill(run.Child(absl::StrCat("--worker-id ", victim)), SIGKILL);
    const std::optional<int> code = run.process().Wait(kEndWithin);
    ASSERT_TRUE(code.has_value()) << "still running:\n" << run.process().output();
    EXPECT_EQ(*code, 1);
    EXPECT_THAT(run.process().output(), HasSubstr(victim));
    EXPECT_THAT(run.process().output(), HasSubstr("SIGKILL"));
    EXPECT_THAT(run.process().output(), HasSubstr("--resume auto"));
    ExpectAllGone(children);
  }
}

TEST(FaultTest, AWorkerKilledBeforeTheFirstStepEndsTheRunToo) {
  TrainRun run(LongRun(2));
  ASSERT_TRUE(testutil::Eventually([&] { return run.Child("--worker-id w1") > 0; }, kEndWithin));
  kill(run.Child("--worker-id w1"), SIGKILL);
  EXPECT_EQ(run.process().Wait(kEndWithin).value_or(-1), 1) << run.process().output();
  EXPECT_THAT(run.process().output(), HasSubstr("w1"));
}

TEST(FaultTest, AWorkerKilledDuringEvaluationsEndsTheRunToo) {
  // Short epochs and a large test set: the run evaluates most of the time.
  TrainRun run({"train.epochs=1000", "data.limit_train=32", "data.limit_test=10000",
                "recovery.enabled=false"});
  ASSERT_TRUE(run.WaitForSteps(RandomSteps())) << run.process().output();
  kill(run.Child("--worker-id w0"), SIGKILL);
  EXPECT_EQ(run.process().Wait(kEndWithin).value_or(-1), 1) << run.process().output();
  EXPECT_THAT(run.process().output(), HasSubstr("w0"));
}

TEST(FaultTest, AKilledServiceEndsTheRunAndIsNamed) {
  for (const std::string service : {"freeze_service", "parameter_service"}) {
    TrainRun run(LongRun(2));
    const std::vector<ChildInfo> children = ChildrenOnceTraining(run, RandomSteps());
    kill(run.Child(service), SIGKILL);
    const std::optional<int> code = run.process().Wait(kEndWithin);
    ASSERT_TRUE(code.has_value()) << "still running:\n" << run.process().output();
    EXPECT_EQ(*code, 1);
    EXPECT_THAT(run.process().output(), HasSubstr(service + " was killed by SIGKILL"));
    ExpectAllGone(children);
  }
}

TEST(FaultTest, WithoutALauncherToStopThemWorkersEndByThemselves) {
  // The launcher is stopped (not killed), so only the workers' own noticing can end them.
  for (const char* victim : {"--worker-id w1", "freeze_service"}) {
    TrainRun run(LongRun(2));
    const std::vector<ChildInfo> children = ChildrenOnceTraining(run, RandomSteps());
    run.process().Signal(SIGSTOP);
    kill(run.Child(victim), SIGKILL);
    for (const ChildInfo& child : children) {
      if (!absl::StrContains(child.command_line, "stage_worker")) continue;
      EXPECT_TRUE(testutil::Eventually([&] { return !testutil::IsAlive(child.pid); }, kEndWithin))
          << "still running after " << victim << " was killed: " << child.command_line;
    }
    run.process().Signal(SIGCONT);
    EXPECT_EQ(run.process().Wait(kEndWithin).value_or(-1), 1) << run.process().output();
    ExpectAllGone(children);
  }
}

TEST(FaultTest, AKilledLauncherLeavesNoOrphan) {
  TrainRun run(LongRun(2));
  const std::vector<ChildInfo> children = ChildrenOnceTraining(run, 1);
  ASSERT_EQ(children.size(), 4u);
  run.process().Signal(SIGKILL);
  ExpectAllGone(children);
}

// As other launchers start them; they go by the exit code.
TEST(FaultTest, AWorkersExitCodeTellsARunThatHasFailed) {
  const testutil::TempDir dir;
  testutil::WriteFile(
      dir.File("config.toml"),
      "[train]\nepochs = 1000\n[data]\nname = \"fashion_mnist\"\nlimit_train = 256\n"
      "[pipeline]\nstages = 2\n[recovery]\nenabled = false\n");
  testutil::Process service({testutil::Binary("freeze_service"), "--listen", "127.0.0.1:0",
                             "--config", dir.File("config.toml"), "--run-dir", dir.path(),
                             "--ready-fd", "1"});
  const std::string address = absl::StrCat("127.0.0.1:", testutil::AnnouncedPort(service));
  const auto worker = [&](const std::string& id, const std::vector<std::string>& more = {}) {
    std::vector<std::string> argv = {testutil::Binary("stage_worker"), "--service", address,
                                     "--worker-id", id};
    argv.insert(argv.end(), more.begin(), more.end());
    return std::make_unique<testutil::Process>(argv);
  };
  const auto w0 = worker("w0"), w1 = worker("w1");
  ASSERT_TRUE(testutil::Eventually(
      [&] { return !testutil::ReadFile(dir.File("metrics.jsonl")).empty(); }, absl::Seconds(60)))
      << service.output();
  w1->Signal(SIGKILL);
  EXPECT_EQ(w0->Wait(kEndWithin), 3) << w0->output();
  EXPECT_THAT(w0->output(), HasSubstr("the run has failed: worker \"w1\""));
  const auto late = worker("w1"), also_late = worker("w1", {"--failed-run-code", "0"});
  EXPECT_EQ(late->Wait(kEndWithin), 3) << late->output();
  EXPECT_THAT(late->output(),
              HasSubstr("there is nothing to do: the run has failed: worker \"w1\""));
  EXPECT_EQ(also_late->Wait(kEndWithin), 0) << also_late->output();
  testutil::Process misspelled({testutil::Binary("stage_worker"), "--servise", address});
  EXPECT_EQ(misspelled.Wait(kEndWithin), 2) << misspelled.output();
}

TEST(FaultTest, CtrlCStopsEverythingWithin5Seconds) {
  for (int signal : {SIGINT, SIGTERM}) {
    TrainRun run(LongRun(2));
    const std::vector<ChildInfo> children = ChildrenOnceTraining(run, 1);
    kill(-run.process().pid(), signal);  // as a terminal does: the whole group
    EXPECT_EQ(run.process().Wait(absl::Seconds(5)).value_or(-1), 130) << run.process().output();
    EXPECT_THAT(run.process().output(), HasSubstr("--resume auto"));
    for (const char* name : {"freeze_service", "parameter_service", "w0", "w1"}) {
      EXPECT_THAT(testutil::ReadFile(absl::StrCat(run.run_dir(), "/logs/", name, ".log")),
                  testing::Not(HasSubstr(" error ")));
    }
    ExpectAllGone(children);
  }
}

}  // namespace
}  // namespace smartpipe
