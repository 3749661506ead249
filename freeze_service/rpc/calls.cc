// The plain calls of the FreezeService: reports, key-value store, state of the run.
#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "freeze_service/rpc/codec.h"
#include "freeze_service/rpc/freeze_service_impl.h"
#include "freeze_service/rpc/report_stream.h"
#include "services/base/limits.h"
#include "services/base/status_macros.h"
#include "services/obs/log.h"
#include "services/rpc/status.h"

namespace smartpipe {
namespace {

template <typename Repeated>
std::vector<std::string> Strings(const Repeated& repeated) {
  return {repeated.begin(), repeated.end()};
}

}  // namespace

// ---- Reports ------------------------------------------------------------------------------------

grpc::ServerBidiReactor<v1::ReportIntervalRequest, v1::ReportIntervalResponse>*
FreezeServiceImpl::ReportInterval(grpc::CallbackServerContext*) {
  return new ReportStream(&reports_);
}

absl::Status FreezeServiceImpl::CheckRate(const WorkerId& worker) {
  const auto member = members_.find(worker);
  if (member == members_.end() || member->second.reports.Take(clock_->Now()))
    return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat("worker ", worker.value(), " sends more than ",
                                                   limits::kReportsPerSecondMax,
                                                   " reports a second; that is the limit"));
}

grpc::Status FreezeServiceImpl::ReportProgress(grpc::ServerContext*,
                                               const v1::ReportProgressRequest* request,
                                               v1::ReportProgressResponse*) {
  if (const absl::Status status = DecodeWorkerId(request->worker_id()).status(); !status.ok()) {
    return ToGrpcStatus(status);
  }
  absl::MutexLock lock(&mutex_);
  absl::Status status = CheckNotEnded();
  if (status.ok()) status = CheckMember(request->worker_id(), request->generation());
  if (status.ok()) status = CheckRate(WorkerId(request->worker_id()));
  if (!status.ok()) return ToGrpcStatus(status);
  const int64_t steps_before = progress_->steps_done();
  const int64_t evaluated_before = progress_->last_evaluation_step();
  const bool had_problem = !progress_->problem().empty();
  status =
      progress_->Add(*request, progress_length(), [this](Step step) ABSL_NO_THREAD_SAFETY_ANALYSIS {
        const std::optional<IntervalIndex> boundary = BoundaryAt(step);
        return boundary ? coordinator_->verdicts().frontier(*boundary) : LayerIndex(0);
      });
  if (!had_problem && !progress_->problem().empty())
    LogError(progress_->problem(), "; the run goes on without it");
  if (!status.ok()) return ToGrpcStatus(status);
  for (const v1::StepProgress& step : request->steps()) {
    if (step.step() >= steps_before) watchers_.TellStep(step);
  }
  for (const v1::Evaluation& evaluation : request->evaluations()) {
    if (evaluation.step() <= evaluated_before) continue;
    v1::WatchRunResponse told;
    *told.mutable_evaluation() = evaluation;
    watchers_.Tell(told);
  }
  return ToGrpcStatus(status);
}

ProgressLog::Length FreezeServiceImpl::progress_length() const {
  const RunLength& length = coordinator_->length();
  return {.num_steps = length.num_steps,
          .steps_per_epoch = length.steps_per_epoch,
          .interval_steps = length.interval_steps};
}

grpc::Status FreezeServiceImpl::ReportFault(grpc::ServerContext*,
                                            const v1::ReportFaultRequest* request,
                                            v1::ReportFaultResponse*) {
  absl::StatusOr<FaultReported> fault = DecodeFault(*request);
  if (!fault.ok()) return ToGrpcStatus(fault.status());
  absl::MutexLock lock(&mutex_);
  return ToGrpcStatus(ApplyEvent(*fault));
}

// ---- Key-value store ----------------------------------------------------------------------------

grpc::Status FreezeServiceImpl::SetKey(grpc::ServerContext*, const v1::SetKeyRequest* request,
                                       v1::SetKeyResponse*) {
  return ToGrpcStatus(
      keys_.Set(Generation(request->generation()), request->key(), request->value()));
}

grpc::Status FreezeServiceImpl::GetKeys(grpc::ServerContext* context,
                                        const v1::GetKeysRequest* request,
                                        v1::GetKeysResponse* response) {
  // The answer that names the missing keys must be on its way before the caller's own deadline ends
  // the call.
  const absl::Duration left = absl::FromChrono(context->deadline()) - absl::Now();
  const absl::Time deadline = absl::Now() + left - std::min(absl::Milliseconds(100), left / 4);
  absl::StatusOr<std::vector<std::string>> values =
      keys_.Get(Generation(request->generation()), Strings(request->keys()), deadline,
                [context] { return context->IsCancelled(); });
  if (!values.ok()) return ToGrpcStatus(values.status());
  for (std::string& value : *values) response->add_values(std::move(value));
  return grpc::Status::OK;
}

grpc::Status FreezeServiceImpl::AddToKey(grpc::ServerContext*, const v1::AddToKeyRequest* request,
                                         v1::AddToKeyResponse* response) {
  absl::StatusOr<int64_t> value =
      keys_.Add(Generation(request->generation()), request->key(), request->amount());
  if (value.ok()) response->set_value(*value);
  return ToGrpcStatus(value.status());
}

grpc::Status FreezeServiceImpl::CompareAndSetKey(grpc::ServerContext*,
                                                 const v1::CompareAndSetKeyRequest* request,
                                                 v1::CompareAndSetKeyResponse* response) {
  absl::StatusOr<std::string> value = keys_.CompareAndSet(
      Generation(request->generation()), request->key(), request->expected(), request->desired());
  if (value.ok()) response->set_value(*value);
  return ToGrpcStatus(value.status());
}

grpc::Status FreezeServiceImpl::CheckKeys(grpc::ServerContext*, const v1::CheckKeysRequest* request,
                                          v1::CheckKeysResponse* response) {
  absl::StatusOr<bool> present =
      keys_.Check(Generation(request->generation()), Strings(request->keys()));
  if (present.ok()) response->set_present(*present);
  return ToGrpcStatus(present.status());
}

grpc::Status FreezeServiceImpl::DeleteKey(grpc::ServerContext*, const v1::DeleteKeyRequest* request,
                                          v1::DeleteKeyResponse* response) {
  absl::StatusOr<bool> deleted = keys_.Delete(Generation(request->generation()), request->key());
  if (deleted.ok()) response->set_deleted(*deleted);
  return ToGrpcStatus(deleted.status());
}

grpc::Status FreezeServiceImpl::CountKeys(grpc::ServerContext*, const v1::CountKeysRequest* request,
                                          v1::CountKeysResponse* response) {
  absl::StatusOr<int64_t> count = keys_.Count(Generation(request->generation()));
  if (count.ok()) response->set_count(*count);
  return ToGrpcStatus(count.status());
}

}  // namespace smartpipe
