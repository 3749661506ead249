#include "cli/child_process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testutil/process.h"

namespace smartpipe {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testutil::TempDir;

constexpr absl::Duration kLong = absl::Seconds(30);

class ChildProcessesTest : public testing::Test {
 protected:
  void SetUp() override {
    auto created = ChildProcesses::Create();
    ASSERT_TRUE(created.ok()) << created.status();
    children_ = *std::move(created);
  }

  absl::Status StartShell(const std::string& name, const std::string& script,
                          int inherited_fd = -1) {
    return children_->Start({.name = name,
                             .argv = {"/bin/sh", "-c", script},
                             .log_path = dir_.File(name + ".log"),
                             .inherited_fd = inherited_fd});
  }

  void WaitForExits(size_t num_exits) {
    const absl::Time deadline = absl::Now() + kLong;
    while (children_->exits().size() < num_exits && absl::Now() < deadline)
      children_->Wait(deadline - absl::Now());
    ASSERT_GE(children_->exits().size(), num_exits);
  }

  TempDir dir_;
  std::unique_ptr<ChildProcesses> children_;
};

TEST_F(ChildProcessesTest, ExitCodeSignalAndLog) {
  ASSERT_TRUE(StartShell("a", "echo out; echo err >&2; exit 3").ok());
  ASSERT_NO_FATAL_FAILURE(WaitForExits(1));
  ASSERT_TRUE(StartShell("b", "kill -9 $$").ok());
  ASSERT_NO_FATAL_FAILURE(WaitForExits(2));
  EXPECT_EQ(DescribeExit(children_->exits()[0]), "exited with code 3");
  EXPECT_EQ(DescribeExit(children_->exits()[1]), "was killed by SIGKILL (signal 9)");
  EXPECT_THAT(LastLines(dir_.File("a.log"), 10), ElementsAre("out", "err"));
  EXPECT_EQ(children_->num_running(), 0u);
}

TEST_F(ChildProcessesTest, AMissingProgramIsNamed) {
  const absl::Status status = children_->Start(
      {.name = "a", .argv = {"/nonexistent/program"}, .log_path = dir_.File("a.log")});
  EXPECT_THAT(std::string(status.message()), HasSubstr("/nonexistent/program: No such file"));
  EXPECT_EQ(children_->num_running(), 0u);
}

TEST_F(ChildProcessesTest, ALogThatCannotBeOpenedIsNamed) {
  const absl::Status status =
      children_->Start({.name = "a", .argv = {"/bin/true"}, .log_path = "/nonexistent/a.log"});
  EXPECT_THAT(std::string(status.message()), HasSubstr("/nonexistent/a.log"));
}

TEST_F(ChildProcessesTest, ChildrenHaveAFreshSignalMaskAndNoStdin) {
  ASSERT_TRUE(StartShell("a", "grep SigBlk /proc/self/status; cat").ok());
  ASSERT_NO_FATAL_FAILURE(WaitForExits(1));
  EXPECT_THAT(LastLines(dir_.File("a.log"), 10), ElementsAre("SigBlk:\t0000000000000000"));
}

TEST_F(ChildProcessesTest, StayInTheLaunchersProcessGroup) {
  ASSERT_TRUE(StartShell("a", "cut -d' ' -f5 /proc/self/stat").ok());
  ASSERT_NO_FATAL_FAILURE(WaitForExits(1));
  EXPECT_THAT(LastLines(dir_.File("a.log"), 10), ElementsAre(absl::StrCat(getpgrp())));
}

TEST_F(ChildProcessesTest, StopAllKillsTheStubborn) {
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  // It says when it has set its trap; exec keeps an ignored signal ignored.
  ASSERT_TRUE(StartShell("stubborn",
                         absl::StrCat("trap '' TERM; echo >&", ends[1], "; exec sleep 1000"),
                         ends[1])
                  .ok());
  ASSERT_TRUE(StartShell("obedient", "exec sleep 1000").ok());
  char byte = 0;
  ASSERT_EQ(read(ends[0], &byte, 1), 1);
  children_->StopAll(absl::Milliseconds(200));
  EXPECT_EQ(children_->num_running(), 0u);
  ASSERT_EQ(children_->exits().size(), 2u);
  EXPECT_EQ(children_->exits()[0].name, "obedient");
  EXPECT_EQ(children_->exits()[0].signal, SIGTERM);
  EXPECT_EQ(children_->exits()[1].signal, SIGKILL);
  close(ends[0]);
  close(ends[1]);
}

TEST_F(ChildProcessesTest, AStoppedChildIsKilled) {
  ASSERT_TRUE(StartShell("a", "kill -STOP $$").ok());
  children_->StopAll(absl::Milliseconds(100));
  EXPECT_EQ(children_->num_running(), 0u);
}

TEST_F(ChildProcessesTest, AStopSignalIsReadNotSuffered) {
  ASSERT_TRUE(StartShell("a", "exec sleep 1000").ok());
  raise(SIGTERM);
  children_->Wait(kLong);
  EXPECT_EQ(children_->stop_signal(), SIGTERM);
  EXPECT_EQ(children_->num_running(), 1u);
}

// The whole point: a parent that is killed without a chance to do anything leaves nobody behind.
TEST(ChildProcessesOrphanTest, KilledParentLeavesNoOrphan) {
  TempDir dir;
  int alive[2], started[2];
  ASSERT_EQ(pipe2(alive, O_CLOEXEC), 0);
  ASSERT_EQ(pipe2(started, O_CLOEXEC), 0);
  const pid_t parent = fork();
  if (parent == 0) {
    auto children = ChildProcesses::Create();
    for (const char* name : {"a", "b"}) {
      const bool ok =
          (*children)
              ->Start({.name = name,
                       .argv = {"/bin/sleep", "1000"},
                       .log_path = dir.File(name),
                       .inherited_fd = alive[1]})  // the pipe ends when the last holder has gone
              .ok();
      if (!ok) _exit(1);
    }
    if (write(started[1], "x", 1) != 1) _exit(1);
    for (;;) (*children)->Wait(absl::Hours(1));
  }
  close(alive[1]);
  close(started[1]);
  char byte = 0;
  ASSERT_EQ(read(started[0], &byte, 1), 1);
  ASSERT_EQ(kill(parent, SIGKILL), 0);
  pollfd entry = {.fd = alive[0], .events = POLLIN, .revents = 0};
  ASSERT_EQ(poll(&entry, 1, 30'000), 1) << "a child outlived its parent";
  EXPECT_EQ(read(alive[0], &byte, 1), 0);
  waitpid(parent, nullptr, 0);
  close(alive[0]);
  close(started[0]);
}

TEST(LastLinesTest, OnlyTheEndOfALongFile) {
  TempDir dir;
  std::string text;
  for (int i = 0; i < 10'000; ++i) absl::StrAppend(&text, "line ", i, "\n\n");
  testutil::WriteFile(dir.File("log"), text);
  EXPECT_THAT(LastLines(dir.File("log"), 2), ElementsAre("line 9998", "line 9999"));
  EXPECT_THAT(LastLines(dir.File("none"), 2), ElementsAre());
  testutil::WriteFile(dir.File("wide"), std::string(100'000, 'x'));
  EXPECT_EQ(LastLines(dir.File("wide"), 2)[0].size(), 400u);
}

}  // namespace
}  // namespace smartpipe
