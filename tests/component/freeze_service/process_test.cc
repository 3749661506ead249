// The freeze_service program as a process.
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/rpc/channel.h"
#include "services/rpc/server.h"
#include "tests/component/freeze_service/service_harness.h"
#include "tests/testutil/process.h"

namespace smartpipe {
namespace {

using testing::HasSubstr;
using testing::Not;
using testutil::Process;

class FreezeServiceProcess : public testing::Test {
 protected:
  FreezeServiceProcess() { testutil::WriteFile(dir_.File("run.toml"), kTestConfig); }

  struct Places {
    std::string config, run_dir, listen = "127.0.0.1:0";
  };
  Places places() const { return {.config = dir_.File("run.toml"), .run_dir = dir_.path()}; }

  static std::vector<std::string> ArgvAt(const Places& places,
                                         const std::vector<std::string>& more = {}) {
    std::vector<std::string> argv = {testutil::Binary("freeze_service"),
                                     "--config",
                                     places.config,
                                     "--run-dir",
                                     places.run_dir,
                                     "--listen",
                                     places.listen};
    argv.insert(argv.end(), more.begin(), more.end());
    return argv;
  }
  std::vector<std::string> Argv(const std::vector<std::string>& more = {}) const {
    return ArgvAt(places(), more);
  }

  /// Address of a service whose port is told on its standard output.
  static std::string Address(Process& process) {
    return absl::StrCat("127.0.0.1:", testutil::AnnouncedPort(process));
  }

  static std::shared_ptr<grpc::Channel> Channel(const std::string& address) {
    return MakeChannel({.address = address, .keepalive = {}});
  }

  testutil::TempDir dir_;
};

TEST_F(FreezeServiceProcess, LeavesTheRunAsItIsOnSigterm) {
  {
    Process process(Argv({"--ready-fd", "1"}));
    StartedRun run(Channel(Address(process)));
    process.Signal(SIGTERM);
    EXPECT_EQ(process.Wait(absl::Seconds(5)), 0) << process.output();
    EXPECT_THAT(process.output(), Not(HasSubstr("is lost")));
    EXPECT_THAT(process.output(), Not(HasSubstr("the run ended")));
    EXPECT_THAT(process.output(), Not(HasSubstr(" error ")));
  }
  Process again(Argv({"--ready-fd", "1"}));
  const auto stub = v1::FreezeService::NewStub(Channel(Address(again)));
  v1::GetRunResponse response;
  EXPECT_TRUE(
      CallStub(*stub, &v1::FreezeService::Stub::GetRun, v1::GetRunRequest(), &response).ok());
  EXPECT_EQ(response.run().state(), v1::RUN_STATE_RUNNING);
  EXPECT_EQ(response.run().generation(), 1);
}

// Its log is gone, and metrics.jsonl tells of a hundred steps.
TEST_F(FreezeServiceProcess, AnswersBeforeARunStartsAnew) {
  testutil::WriteFile(dir_.File("metrics.jsonl"),
                      "{\"step\":99,\"epoch\":0,\"loss\":1,\"step_s\":1}\n");
  Process process(Argv({"--ready-fd", "1"}));
  const auto stub = v1::FreezeService::NewStub(Channel(Address(process)));
  using Stub = v1::FreezeService::Stub;
  v1::GetRunResponse run;
  EXPECT_TRUE(CallStub(*stub, &Stub::GetRun, v1::GetRunRequest(), &run).ok());
  EXPECT_EQ(run.run().step(), 100);
  v1::ListWorkersResponse workers;
  EXPECT_TRUE(CallStub(*stub, &Stub::ListWorkers, v1::ListWorkersRequest(), &workers).ok());
  v1::ListLayersResponse layers;
  EXPECT_TRUE(CallStub(*stub, &Stub::ListLayers, v1::ListLayersRequest(), &layers).ok());
  v1::GetPlanResponse plan;
  EXPECT_EQ(CallStub(*stub, &Stub::GetPlan, v1::GetPlanRequest(), &plan).error_code(),
            grpc::StatusCode::FAILED_PRECONDITION);
}

TEST_F(FreezeServiceProcess, StopsSoonAlsoWithAWorkerThatDoesNotLeave) {
  Process process(Argv({"--ready-fd", "1"}));
  StartedRun run(Channel(Address(process)));
  const absl::Time start = absl::Now();
  process.Signal(SIGTERM);
  EXPECT_EQ(process.Wait(absl::Seconds(10)), 0) << process.output();
  EXPECT_LT(absl::Now() - start, absl::Seconds(2));
}

TEST_F(FreezeServiceProcess, LeavesByItselfAfterTheRun) {
  Process process(Argv({"--ready-fd", "1", "--linger-s", "0"}));
  StartedRun run(Channel(Address(process)));
  run.ReportAll();
  ASSERT_TRUE(run.w0.EndWorker("").ok());
  ASSERT_TRUE(run.w1.EndWorker("").ok());
  EXPECT_EQ(process.Wait(absl::Seconds(10)), 0) << process.output();
  EXPECT_THAT(process.output(), HasSubstr("the run ended: all 2 workers finished"));
}

TEST_F(FreezeServiceProcess, TellsTheDigestOfTheWeightsAndSendsLateWorkersHome) {
  const std::string digest(64, 'a');
  Process process(Argv({"--ready-fd", "1", "--linger-s", "3600"}));
  const std::string address = Address(process);
  StartedRun run(Channel(address));
  run.ReportAll();
  ASSERT_TRUE(run.w0.EndWorker("").ok());
  v1::EndWorkerRequest last_word;
  last_word.set_worker_id("w1");
  last_word.set_generation(1);
  last_word.set_weights_sha256(digest);
  ASSERT_TRUE(run.w1.EndWorker(last_word).ok());
  EXPECT_TRUE(testutil::Eventually(
      [&] { return process.output().find("weights_sha256 " + digest) != std::string::npos; },
      absl::Seconds(10)))
      << process.output();
  FakeWorker late(Channel(address), "w1");
  EXPECT_TRUE(late.WaitEndOfRun().success());
  EXPECT_TRUE(late.EndOfStream().ok());
}

TEST_F(FreezeServiceProcess, SetChangesTheConfig) {
  Process process(Argv({"--ready-fd", "1", "--set", "train.batch_size=64", "--set=train.seed=7"}));
  const auto channel = Channel(Address(process));
  FakeWorker w0(channel, "w0");
  const std::string toml = w0.Next().welcome().config_toml();
  EXPECT_THAT(toml, HasSubstr("batch_size = 64"));
  EXPECT_THAT(toml, HasSubstr("seed = 7"));
  Process bad(Argv({"--set", "pipeline.stage=1"}));
  EXPECT_EQ(bad.Wait(absl::Seconds(10)), 1);
  EXPECT_THAT(bad.output(), HasSubstr("did you mean \"pipeline.stages\"?"));
}

TEST_F(FreezeServiceProcess, RefusesAPortInUse) {
  std::unique_ptr<RpcServer> other = StartServer({}, {}).value();
  Places taken = places();
  taken.listen = other->address();
  Process process(ArgvAt(taken));
  EXPECT_EQ(process.Wait(absl::Seconds(10)), 1);
  EXPECT_THAT(process.output(),
              HasSubstr(absl::StrCat("cannot listen on ", other->address(),
                                     ": address already in use; choose another --listen")));
}

TEST_F(FreezeServiceProcess, RefusesABadConfigWithAllItsProblems) {
  testutil::WriteFile(dir_.File("run.toml"), "[train]\nepoch = 1\nbatch_size = -5\n");
  Process process(Argv());
  EXPECT_EQ(process.Wait(absl::Seconds(10)), 1);
  EXPECT_THAT(process.output(), HasSubstr("run.toml:2: train.epoch"));
  EXPECT_THAT(process.output(), HasSubstr("run.toml:3: train.batch_size"));
}

TEST_F(FreezeServiceProcess, RefusesAMissingRunDirectoryAndConfig) {
  Places wrong_dir = places(), wrong_config = places();
  wrong_dir.run_dir = wrong_config.config = dir_.File("nowhere");
  Process no_dir(ArgvAt(wrong_dir));
  EXPECT_EQ(no_dir.Wait(absl::Seconds(10)), 1);
  EXPECT_THAT(no_dir.output(),
              HasSubstr(absl::StrCat("cannot open the folder ", wrong_dir.run_dir)));
  Process no_config(ArgvAt(wrong_config));
  EXPECT_EQ(no_config.Wait(absl::Seconds(10)), 1);
  EXPECT_THAT(no_config.output(), HasSubstr("--config: cannot open "));
}

TEST_F(FreezeServiceProcess, RefusesWhatCannotBeMeant) {
  Places folder = places();
  folder.config = dir_.path();
  Process is_folder(ArgvAt(folder));
  EXPECT_EQ(is_folder.Wait(absl::Seconds(10)), 1);
  EXPECT_THAT(is_folder.output(), HasSubstr("is a folder, not a file"));
  Process no_address(Argv({"--parameter-service", "nowhere"}));
  EXPECT_EQ(no_address.Wait(absl::Seconds(10)), 1);
  EXPECT_THAT(no_address.output(), HasSubstr("--parameter-service: \"nowhere\" is not an address"));
  Process no_run(Argv({"--resume", "7"}));
  EXPECT_EQ(no_run.Wait(absl::Seconds(10)), 1);
  EXPECT_THAT(no_run.output(), HasSubstr("--resume is 7, but no run was recorded in "));
}

TEST_F(FreezeServiceProcess, AFullDiskStopsItWithAMessage) {
  ASSERT_EQ(symlink("/dev/full", dir_.File("decisions.jsonl").c_str()), 0);
  Process process(Argv({"--ready-fd", "1"}));
  std::shared_ptr<grpc::Channel> channel = Channel(Address(process));
  FakeWorker w0(channel, "w0"), w1(channel, "w1");
  w0.Next(), w1.Next();
  ASSERT_TRUE(w0.Announce().ok());
  EXPECT_FALSE(w1.Announce().ok());
  EXPECT_THAT(w0.WaitEndOfRun().reason(), HasSubstr("No space left on device"));
  EXPECT_EQ(process.Wait(absl::Seconds(10)), 1);
  EXPECT_THAT(process.output(), HasSubstr("cannot record its decisions"));
}

TEST_F(FreezeServiceProcess, ADatabaseThatCannotGrowStopsItWithAMessage) {
  std::vector<std::string> argv = Argv({"--ready-fd", "1"});
  // 36 KiB; the signal for going over it is ignored, so that it is an error.
  argv.insert(argv.begin(), {"/bin/sh", "-c", "trap '' XFSZ; ulimit -f 72; exec \"$0\" \"$@\""});
  Process process(argv);
  StartedRun run(Channel(Address(process)));
  const v1::Verdict first = run.w0.Next().verdict();
  absl::Status status;
  for (int64_t interval = 0; status.ok() && interval < 2; ++interval) {
    for (const auto& [worker, rank] : {std::pair(&run.w1, 1), std::pair(&run.w0, 0)}) {
      if (status.ok()) status = worker->Report(worker->MakeReport(rank, interval, first));
    }
  }
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(run.w0.WaitEndOfRun().reason(), HasSubstr("decisions.db"));
  EXPECT_EQ(process.Wait(absl::Seconds(10)), 1);
  EXPECT_THAT(process.output(), HasSubstr("cannot record its decisions"));
}

TEST_F(FreezeServiceProcess, TellsVersionAndHelp) {
  Process version({testutil::Binary("freeze_service"), "--version"});
  EXPECT_EQ(version.Wait(absl::Seconds(10)), 0);
  EXPECT_THAT(version.output(), HasSubstr("freeze_service 0."));
  Process help({testutil::Binary("freeze_service"), "--help"});
  EXPECT_EQ(help.Wait(absl::Seconds(10)), 0);
  EXPECT_THAT(help.output(), HasSubstr("--listen"));
}

}  // namespace
}  // namespace smartpipe
