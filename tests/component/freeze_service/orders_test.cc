// An operator's orders over gRPC: answers, refusals with their details, repeats, dry runs,
// watchers.
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/base/error_reason.h"
#include "services/base/limits.h"
#include "services/rpc/status.h"
#include "tests/component/freeze_service/service_harness.h"

namespace smartpipe {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Stub = v1::FreezeService::Stub;

/// A started run of 40 steps, interval 10, 4 layers, that takes checkpoints; and an operator.
class OrdersRpc : public ::testing::Test {
 protected:
  OrdersRpc()
      : harness_({.parameter_service = "127.0.0.1:1"}),
        run_(harness_.InProcessChannel()),
        stub_(v1::FreezeService::NewStub(harness_.InProcessChannel())) {}

  template <typename Request, typename Response>
  absl::StatusOr<v1::OrderResult> Give(grpc::Status (Stub::*method)(grpc::ClientContext*,
                                                                    const Request&, Response*),
                                       const Request& request) {
    Response response;
    const grpc::Status status = CallStub(*stub_, method, request, &response);
    if (!status.ok()) return FromGrpcStatus(status);
    return response.result();
  }
  absl::StatusOr<v1::OrderResult> Freeze(int32_t frontier, const std::string& id,
                                         bool validate_only = false) {
    v1::FreezeLayersRequest request;
    request.set_frontier(frontier);
    request.set_request_id(id);
    request.set_validate_only(validate_only);
    return Give(&Stub::FreezeLayers, request);
  }
  std::vector<v1::Order> Orders() {
    v1::ListOrdersResponse response;
    EXPECT_TRUE(CallStub(*stub_, &Stub::ListOrders, v1::ListOrdersRequest(), &response).ok());
    return {response.orders().begin(), response.orders().end()};
  }
  static std::string Reason(const absl::Status& status) {
    const std::optional<ErrorReason> reason = ReasonOf(status);
    return reason.has_value() ? reason->reason : "none";
  }
  /// Reports interval 0 of both workers; boundary 2 gets its verdict.
  void ReportFirst() {
    const v1::Verdict first = run_.w0.Next().verdict();
    ASSERT_TRUE(run_.w0.Report(run_.w0.MakeReport(0, 0, first)).ok());
    ASSERT_TRUE(run_.w1.Report(run_.w1.MakeReport(1, 0, first)).ok());
  }

  ServiceHarness harness_;
  StartedRun run_;
  std::unique_ptr<Stub> stub_;
};

TEST_F(OrdersRpc, TheAnswerNamesTheStepAndTheVerdictCarriesItOut) {
  const auto result = Freeze(2, "r1");
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->order().step(), 20);
  EXPECT_EQ(result->order().boundary(), 2);
  EXPECT_EQ(result->order().text(), "FreezeLayers 2");
  EXPECT_FALSE(result->order().done());
  EXPECT_FALSE(result->has_preview());
  ReportFirst();
  v1::JoinResponse message = run_.w0.Next();
  while (message.has_verdict() && message.verdict().boundary() < 2) message = run_.w0.Next();
  EXPECT_EQ(message.verdict().frontier(), 2);
  EXPECT_THAT(message.verdict().reason(), HasSubstr("ordered by"));
  ASSERT_EQ(Orders().size(), 1u);
  EXPECT_TRUE(Orders()[0].done());
}

TEST_F(OrdersRpc, ARepeatedOrderChangesNothing) {
  const auto first = Freeze(2, "r1"), again = Freeze(2, "r1");
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(first->SerializeAsString(), again->SerializeAsString());
  EXPECT_EQ(Orders().size(), 1u);
  const absl::Status other = Freeze(3, "r1").status();
  EXPECT_EQ(other.code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(Reason(other), "REQUEST_ID_IN_USE");
}

TEST_F(OrdersRpc, WithoutAnIdEachIsItsOwn) {
  const auto first = Freeze(2, "");
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_FALSE(first->order().request_id().empty());
  EXPECT_EQ(Reason(Freeze(2, "").status()), "CONFLICT");
}

TEST_F(OrdersRpc, ADryRunSaysWhatWouldHappenAndNothingDoes) {
  const auto result = Freeze(3, "r1", /*validate_only=*/true);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->order().step(), 20);
  ASSERT_TRUE(result->has_preview());
  EXPECT_EQ(result->preview().frontier(), 3);
  EXPECT_GT(result->preview().predicted_step_s(), 0);
  EXPECT_GT(result->preview().even_step_s(), 0);
  EXPECT_THAT(Orders(), IsEmpty());
  EXPECT_EQ(Reason(Freeze(9, "r1", true).status()), "BAD_FRONTIER");
}

TEST_F(OrdersRpc, RefusalsCarryTheirReason) {
  const absl::Status high = Freeze(4, "r1").status();
  EXPECT_EQ(high.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(*ReasonOf(high), (ErrorReason{"BAD_FRONTIER", {{"least", "1"}, {"most", "3"}}}));
  EXPECT_EQ(Reason(Freeze(1, "not an id").status()), "BAD_REQUEST_ID");
  EXPECT_EQ(Reason(Freeze(1, std::string(64, 'a')).status()), "BAD_REQUEST_ID");
  v1::FreezeLayersRequest late;
  late.set_frontier(1);
  late.set_step(10);
  const absl::Status too_late = Give(&Stub::FreezeLayers, late).status();
  EXPECT_EQ(*ReasonOf(too_late), (ErrorReason{"TOO_LATE", {{"earliest_step", "20"}}}));
  late.set_step(11);
  EXPECT_EQ(Reason(Give(&Stub::FreezeLayers, late).status()), "NO_BOUNDARY_STEP");
  late.set_step(20);
  late.set_reason(std::string(limits::kReasonBytesMax + 1, 'x'));
  EXPECT_EQ(Give(&Stub::FreezeLayers, late).status().code(), absl::StatusCode::kResourceExhausted);
  v1::RebalanceRequest cuts;
  cuts.add_cuts(7);
  EXPECT_EQ(Reason(Give(&Stub::Rebalance, cuts).status()), "BAD_CUTS");
  v1::SetPolicyRequest policy;
  policy.set_policy("nonsense");
  EXPECT_EQ(Reason(Give(&Stub::SetPolicy, policy).status()), "BAD_POLICY");
  v1::DrainWorkerRequest drain;
  drain.set_worker_id("w9");
  EXPECT_EQ(Reason(Give(&Stub::DrainWorker, drain).status()), "UNKNOWN_WORKER");
  EXPECT_EQ(Reason(Give(&Stub::Resume, v1::ResumeRequest()).status()), "NOTHING_TO_DO");
  EXPECT_THAT(Orders(), IsEmpty());
}

TEST_F(OrdersRpc, AHeldVerdictIsToldToTheWorkers) {
  ASSERT_TRUE(Give(&Stub::Pause, v1::PauseRequest()).ok());
  v1::JoinResponse message = run_.w0.Next();
  while (message.has_verdict()) message = run_.w0.Next();
  EXPECT_THAT(message.waiting().message(), HasSubstr("paused from step 20 on"));
  EXPECT_TRUE(harness_.GetRun().paused());
  ASSERT_TRUE(Give(&Stub::Resume, v1::ResumeRequest()).ok());
  EXPECT_FALSE(harness_.GetRun().paused());
}

TEST_F(OrdersRpc, WorkersLayersAndPlanAreTold) {
  ReportFirst();
  v1::ListWorkersResponse workers;
  ASSERT_TRUE(CallStub(*stub_, &Stub::ListWorkers, v1::ListWorkersRequest(), &workers).ok());
  ASSERT_EQ(workers.workers_size(), 2);
  EXPECT_EQ(workers.workers(1).worker_id(), "w1");
  EXPECT_EQ(workers.workers(1).rank(), 1);
  EXPECT_THAT(workers.workers(1).layers(), ::testing::ElementsAre(2, 3));
  EXPECT_EQ(workers.workers(1).intervals_reported(), 1);
  EXPECT_TRUE(workers.workers(1).connected());
  v1::ListLayersResponse layers;
  ASSERT_TRUE(CallStub(*stub_, &Stub::ListLayers, v1::ListLayersRequest(), &layers).ok());
  ASSERT_EQ(layers.layers_size(), 4);
  EXPECT_EQ(layers.layers(3).worker_id(), "w1");
  EXPECT_FALSE(layers.layers(0).frozen());
  v1::GetPlanResponse plan;
  ASSERT_TRUE(CallStub(*stub_, &Stub::GetPlan, v1::GetPlanRequest(), &plan).ok());
  EXPECT_EQ(plan.stages(), "[0,2) [2,4)");
  EXPECT_EQ(plan.next().effective_step(), 20);
  EXPECT_EQ(plan.next().frontier(), 1);
}

TEST_F(OrdersRpc, AWatcherHearsWhatHappensInOrder) {
  grpc::ClientContext context;
  auto stream = stub_->WatchRun(&context, v1::WatchRunRequest());
  v1::WatchRunResponse message;
  ASSERT_TRUE(stream->Read(&message));
  EXPECT_EQ(message.run().state(), v1::RUN_STATE_RUNNING);
  ASSERT_TRUE(Freeze(2, "r1").ok());
  ASSERT_TRUE(stream->Read(&message));
  EXPECT_EQ(message.order().request_id(), "r1");
  ReportFirst();
  ASSERT_TRUE(stream->Read(&message));
  EXPECT_EQ(message.verdict().boundary(), 2);
  v1::ReportProgressRequest progress;
  progress.set_worker_id("w1");
  progress.set_generation(1);
  progress.add_steps()->set_loss(0.5);
  ASSERT_TRUE(run_.w1.Progress(progress).ok());
  ASSERT_TRUE(run_.w1.Progress(progress).ok());  // a repeat is no news
  ASSERT_TRUE(stream->Read(&message));
  EXPECT_EQ(message.step().loss(), 0.5);
  v1::StopRequest stop;
  stop.set_at_once(true);
  ASSERT_TRUE(Give(&Stub::Stop, stop).ok());
  ASSERT_TRUE(stream->Read(&message));
  EXPECT_EQ(message.order().name(), "Stop");
  ASSERT_TRUE(stream->Read(&message));
  EXPECT_FALSE(message.end_of_run().success());
  EXPECT_FALSE(stream->Read(&message));
  EXPECT_TRUE(stream->Finish().ok());
}

TEST_F(OrdersRpc, WatchersHaveALimitAndRoomIsMadeWhenOneLeaves) {
  std::vector<std::unique_ptr<grpc::ClientContext>> contexts;
  std::vector<std::unique_ptr<grpc::ClientReader<v1::WatchRunResponse>>> streams;
  v1::WatchRunResponse message;
  const auto watch = [&] {
    contexts.push_back(std::make_unique<grpc::ClientContext>());
    streams.push_back(stub_->WatchRun(contexts.back().get(), v1::WatchRunRequest()));
    return streams.back()->Read(&message);
  };
  for (int i = 0; i < limits::kWatchersMax; ++i) ASSERT_TRUE(watch()) << i;
  watch();  // it is told the state, then why it cannot stay
  while (streams.back()->Read(&message)) {
  }
  EXPECT_EQ(streams.back()->Finish().error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  contexts.front()->TryCancel();
  while (streams.front()->Read(&message)) {
  }
  EXPECT_EQ(streams.front()->Finish().error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_TRUE(testutil::Eventually(
      [&] {
        watch();
        contexts.back()->TryCancel();
        while (streams.back()->Read(&message)) {
        }
        return streams.back()->Finish().error_code() == grpc::StatusCode::CANCELLED;
      },
      absl::Seconds(10)));
  for (const auto& context : contexts) context->TryCancel();
}

/// Watchers of its own, so that it can be told more than a run has to say.
class ManyWords final
    : public v1::FreezeService::WithRawCallbackMethod_WatchRun<v1::FreezeService::Service> {
 public:
  grpc::ServerWriteReactor<grpc::ByteBuffer>* WatchRun(grpc::CallbackServerContext*,
                                                       const grpc::ByteBuffer*) override {
    return watchers.Add(absl::ZeroDuration(), v1::Run()).get();
  }
  ManualClock clock;
  Watchers watchers{&clock};
};

TEST(Watchers, ASlowOneIsDroppedAndHoldsNobodyUp) {
  ManyWords service;
  const std::unique_ptr<RpcServer> server =
      StartServer({}, {{FreezeServiceImpl::kName, &service}}).value();
  const auto stub = v1::FreezeService::NewStub(server->InProcessChannel());
  grpc::ClientContext slow_context, fast_context;
  auto slow = stub->WatchRun(&slow_context, v1::WatchRunRequest());
  auto fast = stub->WatchRun(&fast_context, v1::WatchRunRequest());
  v1::WatchRunResponse message;
  ASSERT_TRUE(slow->Read(&message));
  ASSERT_TRUE(fast->Read(&message));
  // The transport takes some; what it does not take waits, up to the limit.
  const std::string text(1000, 'x');
  int64_t num_told = 0;
  while (service.watchers.size() == 2 && num_told < 100'000) {
    service.watchers.TellNotice(text);
    ASSERT_TRUE(fast->Read(&message));
    ++num_told;
  }
  EXPECT_GE(num_told, limits::kStreamMessagesMax);
  EXPECT_EQ(service.watchers.size(), 1u);
  while (slow->Read(&message)) {
  }
  const grpc::Status dropped = slow->Finish();
  EXPECT_EQ(dropped.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(dropped.error_message(), HasSubstr("reads too slowly"));
  fast_context.TryCancel();
  while (fast->Read(&message)) {
  }
}

}  // namespace
}  // namespace smartpipe
