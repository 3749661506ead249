// The real service, with a real Coordinator, in this process; and fake workers that speak its
// protocol by hand.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "freeze_service/rpc/freeze_service_impl.h"
#include "services/base/clock.h"
#include "services/rpc/server.h"
#include "smartpipe/v1/freeze_service.grpc.pb.h"
#include "tests/testutil/process.h"

namespace smartpipe {

/// A run of 40 steps, interval 10 (boundaries 0..3), 4 layers, 2 stages cut at layer 2; from
/// boundary 2 on layer 0 is frozen. No rebalancing, so every verdict is known beforehand.
extern const char kTestConfig[];

struct HarnessOptions {
  std::string config = kTestConfig;
  std::unique_ptr<DecisionStore> store;  // null = the real one in dir()
  std::string parameter_service = "";    // told to the workers; "" = no checkpoints
  TlsFiles tls;                          // none = plaintext
};

class ServiceHarness {
 public:
  explicit ServiceHarness(HarnessOptions options = {});
  ~ServiceHarness();

  FreezeServiceImpl& service() { return *service_; }
  const std::string& address() const { return server_->address(); }
  std::string File(const std::string& name) const { return dir_.File(name); }
  std::shared_ptr<grpc::Channel> Channel(const TlsFiles& tls = {});  // over the port
  std::shared_ptr<grpc::Channel> InProcessChannel();                 // without a socket
  v1::Run GetRun();
  /// Ends server and service as a killed process would: no word to anybody.
  void Kill();

 private:
  testutil::TempDir dir_;
  ManualClock clock_;
  std::unique_ptr<FreezeServiceImpl> service_;
  std::unique_ptr<RpcServer> server_;
};

/// One worker with its open Join stream.
class FakeWorker {
 public:
  FakeWorker(std::shared_ptr<grpc::Channel> channel, const std::string& id,
             int64_t incarnation = 1);
  ~FakeWorker();

  v1::FreezeService::Stub& stub() { return *stub_; }
  const std::string& id() const { return id_; }
  /// True when the service takes the worker in; reads one message.
  bool Welcomed();
  /// Next message; fails the test when the stream ended.
  v1::JoinResponse Next();
  /// Skips what it waits for.
  v1::JoinResponse NextBut(v1::JoinResponse::EventCase skipped);
  /// Skips everything before the end of the run.
  v1::EndOfRun WaitEndOfRun();
  grpc::Status EndOfStream();
  /// All verdicts until the stream's end.
  std::vector<v1::Verdict> RestOfVerdicts();
  /// Breaks the connection.
  void Break() { context_.TryCancel(); }

  absl::Status Announce(const v1::AnnounceLayersRequest& request);
  absl::Status Announce();
  /// The correct report of this rank for an interval under `in_force`.
  v1::ReportIntervalRequest MakeReport(int rank, int64_t interval,
                                       const v1::Verdict& in_force) const;
  absl::Status Report(const v1::ReportIntervalRequest& request);
  absl::Status Progress(const v1::ReportProgressRequest& request);
  absl::Status EndWorker(const v1::EndWorkerRequest& request);
  absl::Status EndWorker(const std::string& error);

 private:
  const std::string id_;
  const int64_t incarnation_;
  std::unique_ptr<v1::FreezeService::Stub> stub_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReader<v1::JoinResponse>> stream_;
};

v1::AnnounceLayersRequest MakeAnnouncement(const std::string& worker, int64_t incarnation = 1);

/// Both workers of kTestConfig, joined; their streams stand before the verdict of boundary 0.
struct StartedRun {
  explicit StartedRun(std::shared_ptr<grpc::Channel> channel);
  /// Reports every interval of both workers; the verdicts, as w0 hears them, [boundary].
  std::vector<v1::Verdict> ReportAll();
  FakeWorker w0, w1;
  v1::Assignment assignment;  // of w0
};

/// One call with a deadline of 10 s.
template <typename Method, typename Request, typename Response>
grpc::Status CallStub(v1::FreezeService::Stub& stub, Method method, const Request& request,
                      Response* response) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(10));
  return (stub.*method)(&context, request, response);
}

/// One report over a stream of its own.
grpc::Status CallReport(v1::FreezeService::Stub& stub, const v1::ReportIntervalRequest& report);

}  // namespace smartpipe
