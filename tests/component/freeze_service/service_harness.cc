#include "tests/component/freeze_service/service_harness.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "freeze_service/store/restore.h"
#include "gtest/gtest.h"
#include "services/config/run_config.h"
#include "services/rpc/channel.h"
#include "services/rpc/status.h"

namespace smartpipe {

using Stub = v1::FreezeService::Stub;

const char kTestConfig[] = R"(
[train]
batch_size = 32
microbatches = 2
[pipeline]
stages = 2
cuts = [2]
[freeze]
policy = "schedule"
interval_steps = 10
schedule = [[20, 1]]
[rebalance]
enabled = false
)";

ServiceHarness::ServiceHarness(HarnessOptions options) {
  absl::StatusOr<RunConfig> config = ParseRunConfig(options.config, "test.toml");
  EXPECT_TRUE(config.ok()) << config.status();
  const RunSettings settings = {.config_toml = ToToml(*config), .num_cores = 3};
  std::unique_ptr<DecisionStore> store = std::move(options.store);
  if (store == nullptr) store = OpenDecisionStore(dir_.path(), settings).value().store;
  const CoordinatorOptions coordinator_options = MakeCoordinatorOptions(settings).value();
  auto coordinator = RestoreCoordinator(coordinator_options, *store).value();
  service_ = FreezeServiceImpl::Create({.run_id = "test",
                                        .config_toml = settings.config_toml,
                                        .run_dir = dir_.path(),
                                        .metrics_path = File("metrics.jsonl"),
                                        .batch_size = config->train.batch_size,
                                        .num_cores = settings.num_cores,
                                        .parameter_service = options.parameter_service,
                                        .resumption = {coordinator_options, std::nullopt}},
                                       std::move(coordinator), std::move(store), &clock_)
                 .value();
  RpcServerOptions server_options;
  server_options.tls = options.tls;
  server_ = StartServer(server_options, {{FreezeServiceImpl::kName, service_.get()}}).value();
}

ServiceHarness::~ServiceHarness() {
  service_->Leave();
  Kill();
}

void ServiceHarness::Kill() { server_->Shutdown(absl::ZeroDuration()); }

std::shared_ptr<grpc::Channel> ServiceHarness::Channel(const TlsFiles& tls) {
  return MakeChannel({.address = server_->address(), .keepalive = {}, .tls = tls});
}

std::shared_ptr<grpc::Channel> ServiceHarness::InProcessChannel() {
  return server_->InProcessChannel();
}

v1::Run ServiceHarness::GetRun() {
  auto stub = v1::FreezeService::NewStub(InProcessChannel());
  v1::GetRunResponse response;
  const grpc::Status status = CallStub(*stub, &Stub::GetRun, v1::GetRunRequest(), &response);
  EXPECT_TRUE(status.ok()) << status.error_message();
  return response.run();
}

FakeWorker::FakeWorker(std::shared_ptr<grpc::Channel> channel, const std::string& id,
                       int64_t incarnation)
    : id_(id), incarnation_(incarnation), stub_(v1::FreezeService::NewStub(channel)) {
  v1::JoinRequest request;
  request.set_worker_id(id);
  request.set_incarnation(incarnation);
  request.set_address("test");
  // A test that waits for a message that never comes fails by this.
  context_.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
  stream_ = stub_->Join(&context_, request);
}

FakeWorker::~FakeWorker() {
  context_.TryCancel();
  v1::JoinResponse message;
  while (stream_ != nullptr && stream_->Read(&message)) {
  }
  if (stream_ != nullptr) (void)stream_->Finish();
}

bool FakeWorker::Welcomed() {
  v1::JoinResponse message;
  return stream_->Read(&message) && message.has_welcome();
}

v1::JoinResponse FakeWorker::Next() {
  v1::JoinResponse message;
  EXPECT_TRUE(stream_->Read(&message)) << "the stream of " << id_ << " ended";
  return message;
}

v1::JoinResponse FakeWorker::NextBut(v1::JoinResponse::EventCase skipped) {
  while (true) {
    v1::JoinResponse message;
    if (!stream_->Read(&message)) {
      ADD_FAILURE() << "the stream of " << id_ << " ended";
      return {};
    }
    if (message.event_case() != skipped) return message;
  }
}

v1::EndOfRun FakeWorker::WaitEndOfRun() {
  v1::JoinResponse message;
  while (stream_->Read(&message)) {
    if (message.has_end_of_run()) return message.end_of_run();
  }
  ADD_FAILURE() << "the stream of " << id_ << " ended without a word";
  return {};
}

grpc::Status FakeWorker::EndOfStream() {
  v1::JoinResponse message;
  while (stream_->Read(&message)) {
  }
  const grpc::Status status = stream_->Finish();
  stream_ = nullptr;
  return status;
}

std::vector<v1::Verdict> FakeWorker::RestOfVerdicts() {
  std::vector<v1::Verdict> verdicts;
  v1::JoinResponse message;
  while (stream_->Read(&message)) {
    if (message.has_verdict()) verdicts.push_back(message.verdict());
  }
  return verdicts;
}

v1::AnnounceLayersRequest MakeAnnouncement(const std::string& worker, int64_t incarnation) {
  v1::AnnounceLayersRequest request;
  request.set_worker_id(worker);
  request.set_incarnation(incarnation);
  for (int layer = 0; layer < 4; ++layer) {
    v1::Layer* added = request.add_layers();
    added->set_name(absl::StrCat("block", layer));
    added->mutable_cost()->set_forward_s(1e-3);
    added->mutable_cost()->set_input_grad_s(1e-3);
    added->mutable_cost()->set_weight_grad_s(1e-3);
    added->mutable_cost()->set_output_bytes(1000);
    added->mutable_cost()->set_param_bytes(100);
    added->mutable_cost()->set_state_bytes(300);
  }
  request.set_num_steps(40);
  request.set_steps_per_epoch(20);
  request.set_interval_steps(10);
  return request;
}

absl::Status FakeWorker::Announce(const v1::AnnounceLayersRequest& request) {
  v1::AnnounceLayersResponse response;
  return FromGrpcStatus(CallStub(*stub_, &Stub::AnnounceLayers, request, &response));
}

absl::Status FakeWorker::Announce() { return Announce(MakeAnnouncement(id_, incarnation_)); }

v1::ReportIntervalRequest FakeWorker::MakeReport(int rank, int64_t interval,
                                                 const v1::Verdict& in_force) const {
  v1::ReportIntervalRequest request;
  request.set_worker_id(id_);
  request.set_generation(1);
  request.set_plan_epoch(in_force.plan_epoch());
  request.set_interval(interval);
  request.set_step_s(0.01);
  for (int layer = rank == 0 ? 0 : in_force.cuts(0); layer < (rank == 0 ? in_force.cuts(0) : 4);
       ++layer) {
    v1::LayerReport* added = request.add_layers();
    added->set_layer(layer);
    added->set_frozen(layer < in_force.frontier());
    if (!added->frozen()) added->set_grad_norm_l2(1.0);
    added->mutable_cost()->set_forward_s(1e-3);
    added->mutable_cost()->set_input_grad_s(-1);
    added->mutable_cost()->set_weight_grad_s(-1);
    added->mutable_cost()->set_optimize_s(-1);
  }
  return request;
}

absl::Status FakeWorker::Report(const v1::ReportIntervalRequest& request) {
  return FromGrpcStatus(CallReport(*stub_, request));
}

absl::Status FakeWorker::Progress(const v1::ReportProgressRequest& request) {
  v1::ReportProgressResponse response;
  return FromGrpcStatus(CallStub(*stub_, &Stub::ReportProgress, request, &response));
}

absl::Status FakeWorker::EndWorker(const v1::EndWorkerRequest& request) {
  v1::EndWorkerResponse response;
  return FromGrpcStatus(CallStub(*stub_, &Stub::EndWorker, request, &response));
}

absl::Status FakeWorker::EndWorker(const std::string& error) {
  v1::EndWorkerRequest request;
  request.set_worker_id(id_);
  request.set_generation(1);
  request.set_error(error);
  return EndWorker(request);
}

StartedRun::StartedRun(std::shared_ptr<grpc::Channel> channel)
    : w0(channel, "w0"), w1(channel, "w1") {
  for (FakeWorker* worker : {&w0, &w1}) {
    EXPECT_TRUE(worker->Next().has_welcome());
    const absl::Status announced = worker->Announce();
    EXPECT_TRUE(announced.ok()) << announced;
  }
  for (FakeWorker* worker : {&w1, &w0}) {
    const v1::JoinResponse message = worker->NextBut(v1::JoinResponse::kWaiting);
    EXPECT_TRUE(message.has_assignment()) << message.DebugString();
    assignment = message.assignment();
  }
}

std::vector<v1::Verdict> StartedRun::ReportAll() {
  constexpr int64_t kIntervals = 4;
  std::vector<v1::Verdict> verdicts = {w0.Next().verdict(), w0.Next().verdict()};
  for (int64_t interval = 0; interval < kIntervals; ++interval) {
    for (const auto& [worker, rank] : {std::pair(&w1, 1), std::pair(&w0, 0)}) {
      const absl::Status reported =
          worker->Report(worker->MakeReport(rank, interval, verdicts[interval]));
      EXPECT_TRUE(reported.ok()) << reported;
    }
    if (interval + 2 < kIntervals) verdicts.push_back(w0.Next().verdict());
  }
  return verdicts;
}

grpc::Status CallReport(v1::FreezeService::Stub& stub, const v1::ReportIntervalRequest& report) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(10));
  const auto stream = stub.ReportInterval(&context);
  v1::ReportIntervalResponse answer;
  const bool answered = stream->Write(report) && stream->Read(&answer);
  if (answered) stream->WritesDone();
  const grpc::Status status = stream->Finish();
  return status.ok() && !answered
             ? grpc::Status(grpc::StatusCode::INTERNAL, "the report was not answered")
             : status;
}

}  // namespace smartpipe
