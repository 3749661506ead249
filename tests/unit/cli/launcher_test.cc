// The launcher with shell scripts in the place of the real programs.
#include "cli/launcher.h"

#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>

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

// Finds the value of an option in the script's arguments.
constexpr char kPrelude[] = R"(#!/bin/bash
while [ $# -gt 0 ]; do
  case "$1" in
    --ready-fd) fd=$2 ;;
    --service) service=$2 ;;
    --worker-id) worker=$2 ;;
    --config) config=$2 ;;
    --dir) dir=$2 ;;
    --tls-ca) tls=$2 ;;
    --parameter-service) parameters=$2 ;;
  esac
  shift
done
)";
constexpr char kServe[] =
    "echo \"config $config, parameters at $parameters\"; echo 4242 >&$fd; exec {fd}>&-; exec sleep "
    "1000\n";
constexpr char kKeep[] = "echo \"in $dir\"; echo 2424 >&$fd; exec {fd}>&-; exec sleep 1000\n";

std::string Blame(const Launcher& launcher, absl::string_view message = "") {
  const std::optional<LaunchFailure> failure = launcher.FindFailure(message);
  return failure ? failure->process + " " + failure->how : "";
}

class LauncherTest : public testing::Test {
 protected:
  std::string Script(const std::string& name, const std::string& body) {
    const std::string path = dir_.File(name);
    testutil::WriteFile(path, kPrelude + body);
    chmod(path.c_str(), 0755);
    return path;
  }

  // Creates a launcher of these scripts.
  void Launch(const std::string& service, const std::string& worker, int64_t num_workers,
              const std::string& parameters = kKeep, const std::string& listen = "127.0.0.1:0") {
    std::filesystem::create_directories(dir_.File("run/logs"));
    auto created = Launcher::Create({.parameter_program = Script("parameters", parameters),
                                     .service_program = Script("service", service),
                                     .worker_program = Script("worker", worker),
                                     .run_dir = dir_.File("run"),
                                     .num_workers = num_workers,
                                     .service_listen = listen,
                                     .tls_flags = tls_flags_,
                                     .start_timeout = kLong});
    ASSERT_TRUE(created.ok()) << created.status();
    launcher_ = *std::move(created);
  }

  template <typename Condition>
  void WaitUntil(Condition condition) {
    const absl::Time deadline = absl::Now() + kLong;
    while (!condition() && absl::Now() < deadline) launcher_->Wait(deadline - absl::Now());
    ASSERT_TRUE(condition());
  }

  TempDir dir_;
  std::vector<std::string> tls_flags_;
  std::unique_ptr<Launcher> launcher_;
};

TEST_F(LauncherTest, WorkersGetThePortTheServiceTold) {
  ASSERT_NO_FATAL_FAILURE(Launch(kServe, "echo \"$worker at $service\"\n", 3));
  ASSERT_TRUE(launcher_->StartAll().ok());
  EXPECT_EQ(launcher_->service_address(), "127.0.0.1:4242");
  ASSERT_NO_FATAL_FAILURE(WaitUntil([&] { return launcher_->workers_done(); }));
  EXPECT_FALSE(launcher_->FindFailure().has_value());
  launcher_->StopAll();
  EXPECT_THAT(LastLines(dir_.File("run/logs/w2.log"), 5), ElementsAre("w2 at 127.0.0.1:4242"));
  EXPECT_THAT(LastLines(dir_.File("run/logs/freeze_service.log"), 5),
              ElementsAre(absl::StrCat("config ", dir_.File("run/config.toml"),
                                       ", parameters at 127.0.0.1:2424")));
  EXPECT_THAT(LastLines(dir_.File("run/logs/parameter_service.log"), 5),
              ElementsAre(absl::StrCat("in ", dir_.File("run/checkpoints"))));
}

TEST_F(LauncherTest, AllProcessesGetTheTlsFlags) {
  tls_flags_ = {"--tls-ca", "ca.crt"};
  const std::string tell = "echo \"tls $tls\"\n";
  ASSERT_NO_FATAL_FAILURE(Launch(tell + kServe, tell, 2, tell + kKeep));
  ASSERT_TRUE(launcher_->StartAll().ok());
  ASSERT_NO_FATAL_FAILURE(WaitUntil([&] { return launcher_->workers_done(); }));
  launcher_->StopAll();
  for (const char* name : {"freeze_service", "parameter_service", "w0", "w1"}) {
    EXPECT_THAT(testutil::ReadFile(absl::StrCat(dir_.File("run/logs/"), name, ".log")),
                HasSubstr("tls ca.crt\n"));
  }
}

// No certificate names "all addresses".
TEST_F(LauncherTest, WhatListensEverywhereIsReachedOverLoopback) {
  for (const auto& [listen, reached] : {std::pair("0.0.0.0:0", "127.0.0.1:4242"),
                                        {"[::]:0", "[::1]:4242"},
                                        {"gpu-7:0", "gpu-7:4242"}}) {
    ASSERT_NO_FATAL_FAILURE(Launch(kServe, "true\n", 1, kKeep, listen));
    ASSERT_TRUE(launcher_->StartAll().ok());
    EXPECT_EQ(launcher_->service_address(), reached);
    launcher_->StopAll();
  }
}

TEST_F(LauncherTest, AFailingWorkerIsNamedWithItsLastWords) {
  ASSERT_NO_FATAL_FAILURE(Launch(
      kServe, "if [ $worker = w1 ]; then echo 'out of luck'; exit 7; fi; exec sleep 1000\n", 3));
  ASSERT_TRUE(launcher_->StartAll().ok());
  ASSERT_NO_FATAL_FAILURE(WaitUntil([&] { return launcher_->FindFailure().has_value(); }));
  const LaunchFailure failure = *launcher_->FindFailure();
  EXPECT_EQ(failure.process + " " + failure.how, "worker w1 exited with code 7");
  EXPECT_THAT(failure.last_words, ElementsAre("out of luck"));
  EXPECT_EQ(failure.log_path, dir_.File("run/logs/w1.log"));
  launcher_->StopAll();
}

TEST_F(LauncherTest, TheKilledOneIsToBlameNotThoseThatFollow) {
  ASSERT_NO_FATAL_FAILURE(
      Launch(kServe, "if [ $worker = w1 ]; then kill -KILL $$; fi; exit 1\n", 2));
  ASSERT_TRUE(launcher_->StartAll().ok());
  ASSERT_NO_FATAL_FAILURE(WaitUntil([&] {
    return launcher_->FindFailure() && Blame(*launcher_) != "worker w0 exited with code 1";
  }));
  EXPECT_EQ(Blame(*launcher_), "worker w1 was killed by SIGKILL (signal 9)");
}

TEST_F(LauncherTest, OfTwoExitsTheOneThatTheServiceNamesIsToBlame) {
  ASSERT_NO_FATAL_FAILURE(
      Launch(kServe, "if [ $worker = w2 ]; then exec sleep 1000; fi; exit 1\n", 3));
  ASSERT_TRUE(launcher_->StartAll().ok());
  ASSERT_NO_FATAL_FAILURE(WaitUntil(
      [&] { return Blame(*launcher_, "worker \"w0\"") != Blame(*launcher_, "worker \"w1\""); }));
  EXPECT_EQ(Blame(*launcher_, "worker \"w0\" failed: no answer"), "worker w0 exited with code 1");
  EXPECT_EQ(Blame(*launcher_, "worker \"w1\" failed: no answer"), "worker w1 exited with code 1");
  // A worker may name another one in its own words: the first name counts.
  EXPECT_EQ(Blame(*launcher_, "worker \"w1\" failed: worker \"w0\" is silent"),
            "worker w1 exited with code 1");
  // One that still runs is no reason to name nobody.
  EXPECT_EQ(Blame(*launcher_, "worker \"w2\" is slow"), Blame(*launcher_));
  EXPECT_FALSE(launcher_->FindFailure("worker \"w1\"")->killed);
}

TEST_F(LauncherTest, WhoFindsTheRunFailedIsNotToBlame) {
  ASSERT_NO_FATAL_FAILURE(Launch(kServe, "if [ $worker = w2 ]; then exit 1; fi; exit 3\n", 3));
  ASSERT_TRUE(launcher_->StartAll().ok());
  ASSERT_NO_FATAL_FAILURE(WaitUntil([&] { return launcher_->FindFailure().has_value(); }));
  EXPECT_EQ(Blame(*launcher_, "worker \"w0\" is named first"), "worker w2 exited with code 1");
}

TEST_F(LauncherTest, WhoMadeTheRunFailIsToBlame) {
  ASSERT_NO_FATAL_FAILURE(Launch(kServe, "exit 3\n", 2));
  ASSERT_TRUE(launcher_->StartAll().ok());
  ASSERT_NO_FATAL_FAILURE(WaitUntil(
      [&] { return launcher_->FindFailure("\"w0\"") && launcher_->FindFailure("\"w1\""); }));
  EXPECT_EQ(Blame(*launcher_, "worker \"w1\" cannot go on"), "worker w1 exited with code 3");
  EXPECT_FALSE(launcher_->FindFailure("somebody was lost").has_value());
}

TEST_F(LauncherTest, ASignalCountsMoreThanAName) {
  ASSERT_NO_FATAL_FAILURE(
      Launch(kServe, "if [ $worker = w1 ]; then kill -KILL $$; fi; exit 1\n", 2));
  ASSERT_TRUE(launcher_->StartAll().ok());
  ASSERT_NO_FATAL_FAILURE(WaitUntil(
      [&] { return launcher_->FindFailure() && launcher_->FindFailure("\"w0\"")->killed; }));
  EXPECT_EQ(Blame(*launcher_, "worker \"w0\" failed"),
            "worker w1 was killed by SIGKILL (signal 9)");
}

TEST_F(LauncherTest, TheServicesOwnEndIsAFailure) {
  ASSERT_NO_FATAL_FAILURE(Launch("echo 1 >&$fd; exec {fd}>&-; exit 0\n", "exec sleep 1000\n", 1));
  ASSERT_TRUE(launcher_->StartAll().ok());
  ASSERT_NO_FATAL_FAILURE(WaitUntil([&] { return launcher_->FindFailure().has_value(); }));
  EXPECT_EQ(Blame(*launcher_), "freeze_service exited with code 0");
}

TEST_F(LauncherTest, TheParameterServicesOwnEndIsAFailure) {
  ASSERT_NO_FATAL_FAILURE(Launch(kServe, "kill -KILL $(cat " + dir_.File("pid") + "); sleep 1000\n",
                                 1, "echo $$ > " + dir_.File("pid") + "; " + kKeep));
  ASSERT_TRUE(launcher_->StartAll().ok());
  ASSERT_NO_FATAL_FAILURE(WaitUntil([&] { return launcher_->FindFailure().has_value(); }));
  EXPECT_EQ(Blame(*launcher_), "parameter_service was killed by SIGKILL (signal 9)");
}

TEST_F(LauncherTest, AParameterServiceThatDoesNotStartIsExplained) {
  ASSERT_NO_FATAL_FAILURE(Launch(kServe, "exit 0\n", 2, "echo 'no room'; exit 1\n"));
  EXPECT_EQ(launcher_->StartAll().message(), "the parameter service did not start");
  EXPECT_EQ(Blame(*launcher_), "parameter_service exited with code 1");
  EXPECT_THAT(launcher_->FindFailure()->last_words, ElementsAre("no room"));
}

TEST_F(LauncherTest, AServiceThatDoesNotStartIsExplained) {
  ASSERT_NO_FATAL_FAILURE(Launch("echo 'no such luck'; exit 1\n", "exit 0\n", 2));
  const absl::Status status = launcher_->StartAll();
  EXPECT_EQ(status.message(), "the freeze service did not start");
  ASSERT_TRUE(launcher_->FindFailure().has_value());
  EXPECT_EQ(Blame(*launcher_), "freeze_service exited with code 1");
  EXPECT_THAT(launcher_->FindFailure()->last_words, ElementsAre("no such luck"));
}

TEST_F(LauncherTest, AServiceThatTellsNoPort) {
  ASSERT_NO_FATAL_FAILURE(Launch("echo hello >&$fd; exec sleep 1000\n", "exit 0\n", 1));
  EXPECT_EQ(launcher_->StartAll().message(), "the freeze service gave no port but \"hello\"");
}

TEST_F(LauncherTest, AStopSignalEndsTheWaitForTheService) {
  ASSERT_NO_FATAL_FAILURE(Launch("kill -TERM $PPID; exec sleep 1000\n", "exit 0\n", 1));
  EXPECT_TRUE(absl::IsCancelled(launcher_->StartAll()));
  EXPECT_EQ(launcher_->stop_signal(), SIGTERM);
}

TEST_F(LauncherTest, AMissingProgramIsFoundBeforeAnythingStarts) {
  const auto launcher = Launcher::Create({.parameter_program = "/bin/true",
                                          .service_program = "/nonexistent/freeze_service",
                                          .worker_program = "/bin/true",
                                          .run_dir = dir_.path()});
  EXPECT_THAT(std::string(launcher.status().message()), HasSubstr("/nonexistent/freeze_service"));
}

}  // namespace
}  // namespace smartpipe
