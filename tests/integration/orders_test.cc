// An operator's orders to a real run: the same orders at the same steps give the same bytes on any
// layout, whatever else happens.
#include <signal.h>

#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/rpc/channel.h"
#include "services/rpc/status.h"
#include "smartpipe/v1/freeze_service.grpc.pb.h"
#include "tests/integration/train_harness.h"

namespace smartpipe {
namespace {

using ::testing::HasSubstr;
using testutil::TrainRun;

constexpr int64_t kSteps = 128;

std::vector<std::string> Sets(const std::vector<std::string>& more) {
  std::vector<std::string> sets = {
      "train.epochs=2",          "data.limit_train=1024",     "freeze.policy=full",
      "freeze.interval_steps=8", "checkpoint.every_steps=40", "decision_timeout_s=2.0"};
  sets.insert(sets.end(), more.begin(), more.end());
  return sets;
}

/// An operator of one run.
class Operator {
 public:
  explicit Operator(TrainRun& run) : run_(run) {
    const std::string path = run.run_dir() + "/service_address";
    EXPECT_TRUE(testutil::Eventually(
        [&] {
          std::string address = testutil::ReadFile(path);  // of a resumed run at first the old one
          while (!address.empty() && address.back() == '\n') address.pop_back();
          if (address.empty()) return false;
          stub_ = v1::FreezeService::NewStub(MakeChannel({.address = address, .keepalive = {}}));
          return Run().state() == v1::RUN_STATE_RUNNING;
        },
        absl::Seconds(60)));
  }

  v1::Run Run() {
    grpc::ClientContext context;
    SetTimeout(context, absl::Seconds(5));
    v1::GetRunResponse response;
    stub_->GetRun(&context, {}, &response);
    return response.run();
  }

  /// The step at which it takes effect; -2 after a failure.
  template <typename Request, typename Response>
  int64_t Give(grpc::Status (v1::FreezeService::Stub::*method)(grpc::ClientContext*, const Request&,
                                                               Response*),
               const Request& request) {
    grpc::ClientContext context;
    SetTimeout(context, absl::Seconds(5));
    Response response;
    const grpc::Status status = ((*stub_).*method)(&context, request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message() << "\n" << run_.process().output();
    return status.ok() ? response.result().order().step() : -2;
  }

  void FreezeAt(int64_t step, int32_t frontier) {
    v1::FreezeLayersRequest request;
    request.set_step(step);
    request.set_frontier(frontier);
    request.set_request_id(absl::StrCat("freeze-", step));
    EXPECT_EQ(Give(&v1::FreezeService::Stub::FreezeLayers, request), step);
  }
  void UnfreezeAt(int64_t step, int32_t frontier) {
    v1::UnfreezeLayersRequest request;
    request.set_step(step);
    request.set_frontier(frontier);
    request.set_request_id(absl::StrCat("unfreeze-", step));
    EXPECT_EQ(Give(&v1::FreezeService::Stub::UnfreezeLayers, request), step);
  }

 private:
  TrainRun& run_;
  std::unique_ptr<v1::FreezeService::Stub> stub_;
};

/// Frozen, let go, frozen again, in a run of which this is told at its start.
void GiveOrders(Operator& someone) {
  someone.FreezeAt(32, 3);
  someone.UnfreezeAt(64, 1);
  someone.FreezeAt(96, 2);
}

const nlohmann::json& Undisturbed() {
  static const auto* const summary = [] {
    TrainRun run(Sets({}));
    Operator someone(run);
    GiveOrders(someone);
    EXPECT_EQ(run.Wait(), 0) << run.process().output();
    return new nlohmann::json(run.Summary());
  }();
  return *summary;
}

void ExpectSameResult(TrainRun& run) {
  ASSERT_EQ(run.Wait(), 0) << run.process().output();
  const nlohmann::json summary = run.Summary();
  for (const char* key :
       {"weights_sha256", "test_accuracy", "train_loss", "steps", "frozen_layers"}) {
    EXPECT_EQ(summary[key], Undisturbed()[key]) << key << "\n" << run.process().output();
  }
  testutil::Process replay({testutil::Binary("smartpipe"), "replay", run.run_dir()});
  EXPECT_EQ(replay.Wait(absl::Seconds(60)), 0) << replay.output();
}

TEST(OrdersTest, TheSameOrdersGiveTheSameBytesOnAnyLayout) {
  EXPECT_EQ(Undisturbed()["frozen_layers"], 2);
  for (const std::vector<std::string>& layout : std::vector<std::vector<std::string>>{
           {"pipeline.stages=1"}, {"pipeline.stages=3", "pipeline.schedule=gpipe"}}) {
    TrainRun run(Sets(layout));
    Operator someone(run);
    GiveOrders(someone);
    ExpectSameResult(run);
  }
}

TEST(OrdersTest, PausedDrainedRebalancedAndKilledItIsTheSameRun) {
  TrainRun run(Sets({"pipeline.stages=3"}));
  Operator someone(run);
  GiveOrders(someone);
  const int64_t paused_at = someone.Give(&v1::FreezeService::Stub::Pause, v1::PauseRequest());
  ASSERT_TRUE(
      testutil::Eventually([&] { return someone.Run().step() == paused_at; }, absl::Seconds(60)))
      << run.process().output();
  EXPECT_TRUE(someone.Run().paused());
  // Longer than anybody waits for a verdict that is not held back, and a death on top.
  const absl::Time until = absl::Now() + absl::Seconds(3);
  testutil::Eventually([&] { return absl::Now() > until || someone.Run().step() != paused_at; },
                       absl::Seconds(10));
  EXPECT_EQ(someone.Run().step(), paused_at);
  const pid_t service = run.Child("freeze_service");
  ASSERT_GT(service, 0);
  kill(service, SIGKILL);
  ASSERT_TRUE(testutil::Eventually([&] { return someone.Run().connected_workers_size() == 3; },
                                   absl::Seconds(60)));
  EXPECT_TRUE(someone.Run().paused());
  v1::DrainWorkerRequest drain;
  drain.set_worker_id("w1");
  EXPECT_EQ(someone.Give(&v1::FreezeService::Stub::DrainWorker, drain), paused_at);
  v1::RebalanceRequest rebalance;
  rebalance.set_step(80);
  rebalance.add_cuts(1);
  EXPECT_EQ(someone.Give(&v1::FreezeService::Stub::Resume, v1::ResumeRequest()), paused_at);
  ASSERT_TRUE(
      testutil::Eventually([&] { return someone.Run().generation() == 2; }, absl::Seconds(60)))
      << run.process().output();
  EXPECT_EQ(someone.Give(&v1::FreezeService::Stub::Rebalance, rebalance), 80);
  ExpectSameResult(run);
  EXPECT_EQ(run.Summary()["recoveries"], 0);
}

TEST(OrdersTest, StoppedBehindACheckpointAndResumedItIsTheSameRun) {
  TrainRun run(Sets({}));
  Operator someone(run);
  GiveOrders(someone);
  v1::StopRequest stop;
  stop.set_step(72);
  EXPECT_EQ(someone.Give(&v1::FreezeService::Stub::Stop, stop), 72);
  EXPECT_EQ(run.Wait(), 130);
  EXPECT_THAT(run.process().output(), HasSubstr("The run was stopped on request at step 72"));
  TrainRun again(Sets({}), run.run_dir(), "auto");
  Operator other(again);
  EXPECT_EQ(other.Run().resumed_from_step(), 72);
  ExpectSameResult(again);
}

/// `smartpipe WORDS`; its exit code and output.
std::pair<int, std::string> Command(std::vector<std::string> words) {
  words.insert(words.begin(), testutil::Binary("smartpipe"));
  testutil::Process process(words);
  const int code = process.Wait(absl::Seconds(60)).value_or(-1);
  return {code, process.output()};
}

TEST(OperatorCommands, AskAndOrder) {
  TrainRun run(Sets({}));
  Operator someone(run);
  const std::string& dir = run.run_dir();
  auto [code, text] = Command({"ctl", "pause", dir, "--reason", "lunch", "--request-id", "p"});
  ASSERT_EQ(code, 0) << text;
  EXPECT_THAT(text, HasSubstr("Pause is carried out at step "));
  std::tie(code, text) = Command({"ctl", "pause", dir});
  EXPECT_EQ(code, 1);
  EXPECT_THAT(text, HasSubstr("[NOTHING_TO_DO]"));
  std::tie(code, text) = Command({"status", dir});
  EXPECT_EQ(code, 0);
  EXPECT_THAT(text, HasSubstr("paused from step "));
  EXPECT_THAT(text, HasSubstr("Pause at step "));
  std::tie(code, text) = Command({"top", dir, "--once"});
  EXPECT_EQ(code, 0);
  EXPECT_THAT(text, HasSubstr("last decision: "));
  std::tie(code, text) = Command({"status", dir, "--json"});
  EXPECT_TRUE(nlohmann::json::accept(text)) << text;
  std::tie(code, text) = Command({"layers", dir});
  EXPECT_EQ(code, 0);
  EXPECT_THAT(text, HasSubstr("conv1"));
  std::tie(code, text) = Command({"decisions", dir, "--changes"});
  EXPECT_EQ(code, 0);
  EXPECT_THAT(text, HasSubstr("start: cuts"));
  std::tie(code, text) = Command({"ctl", "rebalance", dir, "--cuts", "1", "--dry-run"});
  EXPECT_EQ(code, 0) << text;
  EXPECT_THAT(text, HasSubstr("Predicted step: "));
  std::tie(code, text) = Command({"ctl", "policy", dir, "linear", "--set", "hits=2"});
  EXPECT_EQ(code, 0) << text;
  std::tie(code, text) = Command({"ctl", "policy", dir, "--set", "hits=x"});
  EXPECT_EQ(code, 2) << text;
  std::tie(code, text) = Command({"ctl", "freeze", dir, "1", "--at-step", "3"});
  EXPECT_EQ(code, 1);
  EXPECT_THAT(text, HasSubstr("[NO_BOUNDARY_STEP]"));
  // The folder of a run that was served at the same address once.
  const testutil::TempDir old;
  testutil::WriteFile(old.File("service_address"), testutil::ReadFile(dir + "/service_address"));
  testutil::WriteFile(old.File("run_id"), "another\n");
  for (const std::vector<std::string>& words :
       {std::vector<std::string>{"status"}, {"ctl", "stop"}}) {
    std::vector<std::string> with_old = words;
    with_old.push_back(old.path());
    std::tie(code, text) = Command(with_old);
    EXPECT_EQ(code, 3) << text;
    EXPECT_THAT(text, HasSubstr(absl::StrCat("now, not that of ", old.path())));
  }
  std::tie(code, text) = Command({"doctor", dir});
  EXPECT_EQ(code, 0) << text;
  EXPECT_THAT(text, HasSubstr("freeze service: answers in"));
  std::tie(code, text) = Command({"ctl", "stop", dir, "--json"});
  EXPECT_EQ(code, 0) << text;
  EXPECT_TRUE(nlohmann::json::accept(text)) << text;
  EXPECT_EQ(run.Wait(), 130);
  std::tie(code, text) = Command({"status", dir});
  EXPECT_EQ(code, 3);
  EXPECT_THAT(text, HasSubstr("nobody answers"));
  std::tie(code, text) = Command({"status", dir + "/logs"});
  EXPECT_EQ(code, 2);
  std::tie(code, text) = Command({"completion", "bash"});
  EXPECT_EQ(code, 0);
  EXPECT_THAT(text, HasSubstr("\"ctl freeze\") words="));
}

}  // namespace
}  // namespace smartpipe
