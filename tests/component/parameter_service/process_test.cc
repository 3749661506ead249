// The parameter_service program as a process, killed in the middle of its work.
#include <signal.h>

#include <atomic>
#include <iostream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "smartpipe/v1/freeze_service.grpc.pb.h"
#include "tests/component/parameter_service/parameter_harness.h"

namespace smartpipe {
namespace {

using testing::HasSubstr;
using testing::Not;
using testutil::Chunk;
using testutil::Header;
using testutil::Noise;
using testutil::Place;
using testutil::Process;
using testutil::PutStream;

std::string Bytes(int64_t step, int32_t layer) {
  return Noise(1 << 20, static_cast<uint64_t>(10 * step + layer));
}

class ParameterServiceProcess : public testing::Test {
 protected:
  std::vector<std::string> Argv(const std::vector<std::string>& more = {}) const {
    std::vector<std::string> argv = {testutil::Binary("parameter_service"),
                                     "--listen",
                                     "127.0.0.1:0",
                                     "--dir",
                                     dir_.File("store"),
                                     "--ready-fd",
                                     "1"};
    argv.insert(argv.end(), more.begin(), more.end());
    return argv;
  }
  static std::shared_ptr<grpc::Channel> Channel(Process& process) {
    const int port = testutil::AnnouncedPort(process);
    return MakeChannel({.address = absl::StrCat("127.0.0.1:", port), .keepalive = {}});
  }
  static ParameterClient Client(Process& process) {
    return ParameterClient({.channel = Channel(process), .call_timeout = absl::Seconds(30)});
  }
  static void PutStep(ParameterClient& client, int64_t step) {
    for (int32_t layer = 0; layer < 3; ++layer) {
      const auto put = client.PutLayer(Place(step, layer), Bytes(step, layer));
      ASSERT_TRUE(put.ok()) << put.status();
    }
  }
  static void CheckStep(ParameterClient& client, int64_t step) {
    for (int32_t layer = 0; layer < 3; ++layer) {
      const auto bytes = client.GetLayer("run", Step(step), LayerIndex(layer));
      ASSERT_TRUE(bytes.ok()) << bytes.status();
      EXPECT_TRUE(*bytes == Bytes(step, layer));
    }
  }

  testutil::TempDir dir_;
};

TEST_F(ParameterServiceProcess, KilledDuringAPutTheLastCheckpointIsGood) {
  {
    Process process(Argv());
    ParameterClient client = Client(process);
    PutStep(client, 0);
    ASSERT_TRUE(client.PutLayer(Place(1, 0), Bytes(1, 0)).ok());
    const auto stub = v1::ParameterService::NewStub(Channel(process));
    const std::string bytes = Bytes(1, 1);
    PutStream stream(*stub);
    stream.Write(Header(Place(1, 1), bytes));
    stream.Write(Chunk(0, absl::string_view(bytes).substr(0, 700'000)));
    ASSERT_TRUE(testutil::Eventually(
        [&] {
          PutStream ask(*stub);
          ask.Write(Header(Place(1, 1), bytes));
          return ask.Finish().ok() && ask.response().bytes_held() == 700'000;
        },
        absl::Seconds(10)));
    process.Signal(SIGKILL);
    EXPECT_EQ(process.Wait(absl::Seconds(10)), 128 + SIGKILL);
    EXPECT_EQ(stream.Finish().code(), absl::StatusCode::kUnavailable);
  }
  Process process(Argv());
  ParameterClient client = Client(process);
  EXPECT_THAT(process.output(), HasSubstr("removed the unfinished upload"));
  EXPECT_EQ(client.GetCheckpoint("run")->step, Step(0));
  CheckStep(client, 0);
  const auto kept = client.PutLayer(Place(1, 0), Bytes(1, 0));
  EXPECT_TRUE(kept->already_there) << "what was acknowledged is still there";
  PutStep(client, 1);
  EXPECT_EQ(client.GetCheckpoint("run")->step, Step(1));
  CheckStep(client, 1);
}

TEST_F(ParameterServiceProcess, KilledAgainAndAgainItLosesNothing) {
  int64_t last_acknowledged = -1;
  for (int round = 0; round < 6; ++round) {
    Process process(Argv());
    ParameterClient client = Client(process);
    if (last_acknowledged >= 0) {
      EXPECT_GE(client.GetCheckpoint("run")->step, Step(last_acknowledged));
      CheckStep(client, last_acknowledged);
    }
    ParameterClient impatient(
        {.channel = Channel(process), .attempts_max = 1, .call_timeout = absl::Seconds(30)});
    // The kill comes at some point of the puts that are going on.
    std::thread killer([&] {
      const std::string partial = dir_.File("store/partial");
      testutil::Eventually(
          [&, count = 0]() mutable {
            const auto files = SystemFiles().List(partial);
            return files.ok() && !files->empty() && ++count > 2 * round;
          },
          absl::Seconds(20));
      process.Signal(SIGKILL);
    });
    absl::Status status;
    for (int64_t step = last_acknowledged + 1; status.ok() && step < 1000; ++step) {
      for (int32_t layer = 0; layer < 3 && status.ok(); ++layer) {
        const auto put = impatient.PutLayer(Place(step, layer), Bytes(step, layer));
        status = put.status();
        if (put.ok() && put->checkpoint_complete && layer == 2) last_acknowledged = step;
      }
    }
    killer.join();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
  }
  std::cout << "6 kills, newest acknowledged checkpoint: " << last_acknowledged << "\n";
}

TEST_F(ParameterServiceProcess, StopsInOrderOnSigterm) {
  Process process(Argv({"--quota-bytes", "1000"}));
  ParameterClient client = Client(process);
  ASSERT_TRUE(client.PutLayer(Place(0, 0, 1), "small").ok());
  EXPECT_EQ(client.PutLayer(Place(1, 0, 1), Noise(2000, 1)).status().code(),
            absl::StatusCode::kResourceExhausted);
  process.Signal(SIGTERM);
  EXPECT_EQ(process.Wait(absl::Seconds(10)), 0) << process.output();
  EXPECT_THAT(process.output(), HasSubstr("stopping"));
}

/// A FreezeService that says of its run what it is told to.
class SayingService : public v1::FreezeService::CallbackService {
 public:
  grpc::ServerUnaryReactor* GetRun(grpc::CallbackServerContext* context, const v1::GetRunRequest*,
                                   v1::GetRunResponse* response) override {
    response->mutable_run()->set_state(state.load());
    response->mutable_run()->set_message("so it is");
    ++num_asked;
    grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }
  std::atomic<v1::RunState> state = v1::RUN_STATE_RUNNING;
  std::atomic<int> num_asked = 0;
};

TEST_F(ParameterServiceProcess, EndsWithTheRunThatItIsToldOf) {
  for (const v1::RunState end : {v1::RUN_STATE_FINISHED, v1::RUN_STATE_FAILED}) {
    auto service = std::make_unique<SayingService>();
    std::unique_ptr<RpcServer> server =
        StartServer({}, {{"smartpipe.v1.FreezeService", service.get()}}).value();
    const std::string address = server->address();
    Process process(Argv({"--until-run", address}));
    testutil::AnnouncedPort(process);
    ASSERT_TRUE(testutil::Eventually([&] { return service->num_asked > 1; }, absl::Seconds(20)));
    server.reset();  // a service that is started again is no end of the run
    service = std::make_unique<SayingService>();
    server =
        StartServer({.listen_address = address}, {{"smartpipe.v1.FreezeService", service.get()}})
            .value();
    ASSERT_TRUE(testutil::Eventually([&] { return service->num_asked > 1; }, absl::Seconds(20)));
    service->state = end;
    EXPECT_EQ(process.Wait(absl::Seconds(10)), 0) << process.output();
    EXPECT_THAT(process.output(), HasSubstr("is over: so it is"));
    EXPECT_THAT(process.output(), Not(HasSubstr("cannot ask")));
  }
  {  // over before: it is there for whoever waits for its health, though the service leaves
    auto service = std::make_unique<SayingService>();
    service->state = v1::RUN_STATE_FINISHED;
    std::unique_ptr<RpcServer> server =
        StartServer({}, {{"smartpipe.v1.FreezeService", service.get()}}).value();
    Process process(Argv({"--until-run", server->address()}));
    testutil::AnnouncedPort(process);
    const absl::Time began = absl::Now();
    ASSERT_TRUE(testutil::Eventually([&] { return service->num_asked > 0; }, absl::Seconds(20)));
    server.reset();
    EXPECT_EQ(process.Wait(absl::Seconds(30)), 0) << process.output();
    EXPECT_GT(absl::Now() - began, absl::Seconds(5));
  }
  Process malformed(Argv({"--until-run", "nowhere"}));
  EXPECT_EQ(malformed.Wait(absl::Seconds(10)), 1);
  EXPECT_THAT(malformed.output(), HasSubstr("--until-run: \"nowhere\" is not an address"));
}

TEST_F(ParameterServiceProcess, TakesARunForOverWhoseServiceStaysAway) {
  SayingService service;
  std::unique_ptr<RpcServer> server =
      StartServer({}, {{"smartpipe.v1.FreezeService", &service}}).value();
  const std::string address = server->address();
  Process knew_it(Argv({"--until-run", address, "--absence-s", "1"}));
  testutil::AnnouncedPort(knew_it);
  ASSERT_TRUE(testutil::Eventually([&] { return service.num_asked > 2; }, absl::Seconds(20)));
  EXPECT_FALSE(knew_it.Wait(absl::ZeroDuration()).has_value()) << knew_it.output();
  server.reset();
  EXPECT_EQ(knew_it.Wait(absl::Seconds(20)), 0) << knew_it.output();
  EXPECT_THAT(knew_it.output(), HasSubstr("its run is taken for over"));
  // One that came behind the end of the run, as after it has read a large store.
  Process missed_it(Argv({"--until-run", address, "--absence-s", "1"}));
  EXPECT_EQ(missed_it.Wait(absl::Seconds(20)), 0) << missed_it.output();
  EXPECT_THAT(missed_it.output(), HasSubstr("its run is taken for over"));
}

TEST_F(ParameterServiceProcess, SaysThatItMayNotAskForTheRun) {
  // Nobody implements GetRun there.
  v1::FreezeService::Service service;
  const std::unique_ptr<RpcServer> server =
      StartServer({}, {{"smartpipe.v1.FreezeService", &service}}).value();
  Process process(Argv({"--until-run", server->address(), "--absence-s", "1"}));
  testutil::AnnouncedPort(process);
  EXPECT_TRUE(testutil::Eventually(
      [&] {
        return process.output().find("cannot ask the freeze service at") != std::string::npos;
      },
      absl::Seconds(20)));
  // Who refuses is there.
  EXPECT_FALSE(process.Wait(absl::Seconds(3)).has_value()) << process.output();
  process.Signal(SIGTERM);
  EXPECT_EQ(process.Wait(absl::Seconds(10)), 0) << process.output();
}

TEST_F(ParameterServiceProcess, RefusesAFolderInUseAndOneThatCannotBe) {
  Process first(Argv());
  Channel(first);
  Process second(Argv());
  EXPECT_EQ(second.Wait(absl::Seconds(10)), 1);
  EXPECT_THAT(second.output(), HasSubstr("another process serves the layer store"));
  Process nowhere({testutil::Binary("parameter_service"), "--dir", "/proc/nowhere/store"});
  EXPECT_EQ(nowhere.Wait(absl::Seconds(10)), 1);
  EXPECT_THAT(nowhere.output(), HasSubstr("/proc/nowhere/store"));
  Process negative(
      {testutil::Binary("parameter_service"), "--dir", dir_.path(), "--quota-bytes", "-5"});
  EXPECT_NE(negative.Wait(absl::Seconds(10)), 0);
}

}  // namespace
}  // namespace smartpipe
