// Each limit of the service from outside: what is at the limit is served, what is beyond it is
// refused by name and changes nothing. Those of one message's contents are in bad_input_test.cc.
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "freeze_service/rpc/message_stream.h"
#include "freeze_service/rpc/report_queue.h"
#include "freeze_service/rpc/watchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/base/limits.h"
#include "services/rpc/channel.h"
#include "services/rpc/server.h"
#include "services/rpc/status.h"
#include "tests/component/freeze_service/service_harness.h"

namespace smartpipe {
namespace {

using absl::StatusCode;
using testing::HasSubstr;
using Stub = v1::FreezeService::Stub;

/// A started run of 200 boundaries that takes checkpoints.
class Limits : public testing::Test {
 protected:
  Limits()
      : harness_({.parameter_service = "127.0.0.1:1"}),
        w0_(harness_.Channel(), "w0"),
        w1_(harness_.Channel(), "w1") {
    for (FakeWorker* worker : {&w0_, &w1_}) {
      EXPECT_TRUE(worker->Welcomed());
      v1::AnnounceLayersRequest request = MakeAnnouncement(worker->id());
      request.set_num_steps(2000);
      EXPECT_TRUE(worker->Announce(request).ok());
    }
    EXPECT_TRUE(w0_.NextBut(v1::JoinResponse::kWaiting).has_assignment());
    first_ = w0_.Next().verdict();
  }

  template <typename Request, typename Response>
  absl::Status Call(grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                    const Request& request) {
    Response response;
    return FromGrpcStatus(CallStub(w0_.stub(), method, request, &response));
  }
  absl::Status Checkpoint(int64_t step) {
    v1::CheckpointRequest request;
    request.set_step(step);
    request.set_request_id(absl::StrCat("checkpoint-", step));
    return Call(&Stub::Checkpoint, request);
  }
  int NumOrders() {
    v1::ListOrdersResponse response;
    EXPECT_TRUE(CallStub(w0_.stub(), &Stub::ListOrders, v1::ListOrdersRequest(), &response).ok());
    return response.orders_size();
  }

  ServiceHarness harness_;
  FakeWorker w0_, w1_;
  v1::Verdict first_;
};

TEST_F(Limits, ReportsASecondOfOneWorker) {
  const v1::ReportIntervalRequest report = w0_.MakeReport(0, 0, first_);
  // The harness's clock stands still: this is all within one second.
  for (int i = 0; i < limits::kReportsPerSecondMax; ++i) ASSERT_TRUE(w0_.Report(report).ok()) << i;
  const absl::Status refused = w0_.Report(report);
  EXPECT_EQ(refused.code(), StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("worker w0 sends more than 1000 reports"));
  v1::ReportProgressRequest progress;
  progress.set_worker_id("w0");
  progress.set_generation(1);
  EXPECT_EQ(w0_.Progress(progress).code(), StatusCode::kResourceExhausted);
  EXPECT_TRUE(w1_.Report(w1_.MakeReport(1, 0, first_)).ok()) << "the others are not held up";
}

TEST_F(Limits, OpenOrders) {
  for (int64_t i = 0; i < limits::kOrdersOpenMax; ++i) {
    const absl::Status accepted = Checkpoint(100 + 10 * i);
    ASSERT_TRUE(accepted.ok()) << accepted;
  }
  const absl::Status refused = Checkpoint(1990);
  EXPECT_EQ(refused.code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(refused.message(), "64 orders are open; that is the limit");
  EXPECT_TRUE(Checkpoint(100).ok()) << "a repeated one is no new one";
  EXPECT_EQ(NumOrders(), limits::kOrdersOpenMax);
}

TEST_F(Limits, OldOrdersAreForgotten) {
  ASSERT_TRUE(Checkpoint(1990).ok());  // open to the end, so it stays
  const auto pause_and_resume = [this](int64_t i) {
    v1::PauseRequest pause;
    pause.set_request_id(absl::StrCat("pause-", i));
    v1::ResumeRequest resume;
    resume.set_request_id(absl::StrCat("resume-", i));
    return Call(&Stub::Pause, pause).ok() && Call(&Stub::Resume, resume).ok();
  };
  for (int64_t i = 0; 2 * i < limits::kOrdersRemembered; ++i) ASSERT_TRUE(pause_and_resume(i)) << i;
  EXPECT_EQ(NumOrders(), limits::kOrdersRemembered);
  EXPECT_TRUE(Checkpoint(1990).ok()) << "it is known still";
  EXPECT_EQ(NumOrders(), limits::kOrdersRemembered);
  EXPECT_TRUE(pause_and_resume(0)) << "forgotten: a new order";
}

TEST_F(Limits, OneMessage) {
  v1::SetPolicyRequest policy;
  policy.set_policy("schedule");
  for (int i = 0; i <= limits::kScheduleEntriesMax; ++i) {
    v1::ScheduleEntry* entry = policy.add_schedule();
    entry->set_step(10 * i);
    entry->set_frontier(1);
  }
  absl::Status refused = Call(&Stub::SetPolicy, policy);
  EXPECT_EQ(refused.code(), StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("4096"));

  v1::CheckpointRequest checkpoint;
  checkpoint.set_request_id(std::string(limits::kRequestIdBytesMax, 'r'));
  EXPECT_TRUE(Call(&Stub::Checkpoint, checkpoint).ok());
  checkpoint.set_request_id(std::string(limits::kRequestIdBytesMax + 1, 'r'));
  refused = Call(&Stub::Checkpoint, checkpoint);
  EXPECT_EQ(refused.code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("{1,63}"));

  // A channel without a limit on the sending side: it is the server that refuses.
  const auto stub = v1::FreezeService::NewStub(
      grpc::CreateChannel(harness_.address(), grpc::InsecureChannelCredentials()));
  v1::StopRequest stop;
  stop.set_reason(std::string(limits::kGrpcMessageBytesMax + 1, 'x'));
  v1::StopResponse stopped;
  EXPECT_EQ(CallStub(*stub, &Stub::Stop, stop, &stopped).error_code(),
            grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(NumOrders(), 1);
  EXPECT_EQ(harness_.GetRun().state(), v1::RUN_STATE_RUNNING);
}

TEST(LimitsOfJoining, Checkpoints) {
  ServiceHarness harness;
  FakeWorker w0(harness.Channel(), "w0");
  ASSERT_TRUE(w0.Welcomed());
  v1::AnnounceLayersRequest request = MakeAnnouncement("w0");
  for (int i = 0; i <= limits::kCheckpointsAnnouncedMax; ++i) request.add_checkpoints(i);
  const absl::Status refused = w0.Announce(request);
  EXPECT_EQ(refused.code(), StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("1000"));
  request.mutable_checkpoints()->RemoveLast();
  EXPECT_TRUE(w0.Announce(request).ok());
}

TEST(LimitsOfJoining, ConnectedWorkers) {
  ServiceHarness harness;
  const std::shared_ptr<grpc::Channel> channel = harness.Channel();
  std::vector<std::unique_ptr<FakeWorker>> workers;
  for (int i = 0; i < limits::kWorkersMax; ++i) {
    workers.push_back(std::make_unique<FakeWorker>(channel, absl::StrCat("w", i)));
    ASSERT_TRUE(workers.back()->Welcomed()) << i;
  }
  FakeWorker late(channel, "late");
  const grpc::Status refused = late.EndOfStream();
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(refused.error_message(), "256 workers are connected; that is the limit");
  workers.pop_back();
  EXPECT_TRUE(testutil::Eventually([&channel] { return FakeWorker(channel, "late").Welcomed(); },
                                   absl::Seconds(10)))
      << "there is room when one leaves";
}

/// Streams that say one word and stay open.
class OpenStreams final
    : public v1::FreezeService::WithRawCallbackMethod_WatchRun<v1::FreezeService::Service> {
 public:
  grpc::ServerWriteReactor<grpc::ByteBuffer>* WatchRun(grpc::CallbackServerContext*,
                                                       const grpc::ByteBuffer*) override {
    const std::shared_ptr<WatchStream> stream =
        WatchStream::Create(absl::ZeroDuration(), [](WatchStream&) {});
    stream->Send(v1::WatchRunResponse());
    return stream.get();
  }
};

TEST(LimitsOfAConnection, CallsAtTheSameTime) {
  OpenStreams service;
  const auto server = StartServer({}, {{"streams", &service}}).value();
  const auto stub = v1::FreezeService::NewStub(
      MakeChannel({.address = server->address(), .keepalive = {}, .tls = {}}));
  struct Stream {
    grpc::ClientContext context;
    std::unique_ptr<grpc::ClientReader<v1::WatchRunResponse>> reader;
  };
  std::vector<std::unique_ptr<Stream>> streams;
  v1::WatchRunResponse message;
  const auto open = [&stub](Stream& stream) {
    stream.reader = stub->WatchRun(&stream.context, v1::WatchRunRequest());
  };
  for (int i = 0; i < limits::kCallsPerConnectionMax; ++i) {
    streams.push_back(std::make_unique<Stream>());
    open(*streams.back());
    ASSERT_TRUE(streams.back()->reader->Read(&message)) << i;
  }
  Stream waits;
  waits.context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(300));
  open(waits);
  EXPECT_FALSE(waits.reader->Read(&message)) << "it waits until another call ends";
  EXPECT_EQ(waits.reader->Finish().error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  streams.front()->context.TryCancel();
  Stream served;
  open(served);
  EXPECT_TRUE(served.reader->Read(&message));
  streams.push_back(nullptr);
  served.context.TryCancel();
  for (const auto& stream : streams) {
    if (stream != nullptr) stream->context.TryCancel();
  }
}

TEST(ReportQueue, HandsOnAllThatWaitInOrderAndRefusesTooMany) {
  absl::Notification started, go_on;
  std::vector<size_t> batches;
  std::vector<int64_t> taken;
  std::vector<absl::Status> answers;
  const auto report = [&answers](int64_t interval) {
    WaitingReport waiting;
    waiting.report.interval = IntervalIndex(interval);
    waiting.answer = [&answers](const absl::Status& status) { answers.push_back(status); };
    return waiting;
  };
  {
    ReportQueue queue([&](std::vector<WaitingReport> reports) {
      if (batches.empty()) {
        started.Notify();
        go_on.WaitForNotification();
      }
      batches.push_back(reports.size());
      for (const WaitingReport& waiting : reports) {
        taken.push_back(waiting.report.interval.value());
        waiting.answer(absl::OkStatus());
      }
    });
    queue.Push(report(0));
    started.WaitForNotification();
    for (int64_t i = 1; i <= limits::kReportsWaitingMax; ++i) queue.Push(report(i));
    EXPECT_TRUE(answers.empty());
    queue.Push(report(-1));
    ASSERT_EQ(answers.size(), 1u);
    EXPECT_EQ(answers[0].code(), StatusCode::kResourceExhausted);
    EXPECT_EQ(answers[0].message(), "4096 reports wait already; that is the limit");
    go_on.Notify();
  }
  EXPECT_EQ(batches, (std::vector<size_t>{1, limits::kReportsWaitingMax}));
  ASSERT_EQ(taken.size(), 1u + limits::kReportsWaitingMax);
  for (size_t i = 0; i < taken.size(); ++i) ASSERT_EQ(taken[i], static_cast<int64_t>(i));
  EXPECT_EQ(answers.size(), 2u + limits::kReportsWaitingMax);
}

}  // namespace
}  // namespace smartpipe
