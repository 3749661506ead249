// The worker's stream of reports against a service that answers, refuses, stays silent or goes.
#include "worker/control/report_client.h"

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/rpc/channel.h"
#include "services/rpc/server.h"

namespace smartpipe {
namespace {

using absl::StatusCode;

/// Refuses interval 13, is silent about 99, answers all others with their interval.
class Service final : public v1::FreezeService::Service {
 public:
  using Stream = grpc::ServerReaderWriter<v1::ReportIntervalResponse, v1::ReportIntervalRequest>;
  grpc::Status ReportInterval(grpc::ServerContext*, Stream* stream) override {
    ++num_streams;
    v1::ReportIntervalRequest report;
    while (stream->Read(&report)) {
      if (report.interval() == 13) return {grpc::StatusCode::INVALID_ARGUMENT, "unlucky"};
      if (report.interval() == 99) continue;
      v1::ReportIntervalResponse answer;
      answer.set_service_received_ns(report.interval());
      stream->Write(answer);
    }
    return grpc::Status::OK;
  }
  std::atomic<int> num_streams = 0;
};

class ReportClientTest : public testing::Test {
 protected:
  ReportClientTest() {
    server_ = StartServer({}, {{"smartpipe.v1.FreezeService", &service_}}).value();
    stub_ = v1::FreezeService::NewStub(
        MakeChannel({.address = server_->address(), .keepalive = {}, .tls = {}}));
    client_ = std::make_unique<ReportClient>(stub_.get());
  }
  absl::StatusOr<int64_t> Send(int64_t interval, absl::Duration timeout = absl::Seconds(20)) {
    v1::ReportIntervalRequest report;
    report.set_interval(interval);
    v1::ReportIntervalResponse answer;
    if (absl::Status status = client_->Send(report, &answer, timeout); !status.ok()) return status;
    return answer.service_received_ns();
  }

  Service service_;
  std::unique_ptr<RpcServer> server_;
  std::unique_ptr<v1::FreezeService::Stub> stub_;
  std::unique_ptr<ReportClient> client_;
};

TEST_F(ReportClientTest, OneStreamCarriesAllReports) {
  for (const int64_t interval : {1, 2, 3}) EXPECT_EQ(Send(interval).value(), interval);
  EXPECT_EQ(service_.num_streams, 1);
}

TEST_F(ReportClientTest, ARefusalIsReturnedAndTheNextReportGoesOverANewStream) {
  EXPECT_EQ(Send(1).value(), 1);
  const absl::Status refused = Send(13).status();
  EXPECT_EQ(refused, absl::InvalidArgumentError("unlucky"));
  EXPECT_EQ(Send(2).value(), 2);
  EXPECT_EQ(service_.num_streams, 2);
}

TEST_F(ReportClientTest, SilenceEndsAtTheDeadlineAndTheNextReportIsAnswered) {
  EXPECT_EQ(Send(99, absl::Milliseconds(200)).status().code(), StatusCode::kDeadlineExceeded);
  EXPECT_EQ(Send(2).value(), 2);
}

TEST_F(ReportClientTest, CancelEndsTheReportUnderWayAndAllLaterOnes) {
  StatusCode late = StatusCode::kOk;
  std::thread sender([&] { late = Send(99, absl::InfiniteDuration()).status().code(); });
  client_->Cancel();
  sender.join();
  EXPECT_EQ(late, StatusCode::kCancelled);
  EXPECT_EQ(Send(1).status().code(), StatusCode::kCancelled);
}

TEST_F(ReportClientTest, AServiceThatEndsIsUnavailable) {
  EXPECT_EQ(Send(1).value(), 1);
  server_->Shutdown(absl::ZeroDuration());
  EXPECT_EQ(Send(2).status().code(), StatusCode::kUnavailable);
  EXPECT_EQ(Send(3).status().code(), StatusCode::kUnavailable);
}

}  // namespace
}  // namespace smartpipe
