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
#include "services/base/limits.h"
#include "services/base/status_macros.h"
#include "services/obs/log.h"
#include "services/obs/trace_file.h"
#include "services/rpc/status.h"

namespace smartpipe {
namespace {

constexpr int kPageDefault = 100;
// A page ends once it is over this; one verdict is far smaller.
constexpr size_t kPageBytesMax = limits::kGrpcMessageBytesMax / 2;

template <typename Repeated>
std::vector<std::string> Strings(const Repeated& repeated) {
  return {repeated.begin(), repeated.end()};
}

bool IsChange(const Verdict& verdict) { return verdict.plan.has_value(); }

absl::StatusOr<size_t> DecodePageToken(const std::string& token, size_t num_verdicts) {
  uint64_t first = 0;
  if (token.empty()) return 0;
  const bool digits =
      std::all_of(token.begin(), token.end(), [](char c) { return c >= '0' && c <= '9'; });
  if (digits && absl::SimpleAtoi(token, &first) && first <= num_verdicts) return first;
  return absl::InvalidArgumentError(
      "page_token is not one that this service gave; take next_page_token as it is");
}

}  // namespace

// ---- Reports ------------------------------------------------------------------------------------

grpc::Status FreezeServiceImpl::ReportInterval(grpc::ServerContext*,
                                               const v1::ReportIntervalRequest* request,
                                               v1::ReportIntervalResponse* response) {
  response->set_service_received_ns(MonotonicNs());
  absl::StatusOr<IntervalReported> reported = DecodeReport(*request);
  if (!reported.ok()) return ToGrpcStatus(reported.status());
  absl::MutexLock lock(&mutex_);
  const absl::Status status = ApplyEvent(*reported);
  response->set_service_replied_ns(MonotonicNs());
  return ToGrpcStatus(status);
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
  if (!status.ok()) return ToGrpcStatus(status);
  const bool had_problem = !progress_->problem().empty();
  status =
      progress_->Add(*request, progress_length(), [this](Step step) ABSL_NO_THREAD_SAFETY_ANALYSIS {
        const Verdict* verdict = VerdictAt(step);
        return verdict == nullptr ? LayerIndex(0) : verdict->frontier;
      });
  if (!had_problem && !progress_->problem().empty())
    LogError(progress_->problem(), "; the run goes on without it");
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

// ---- State of the run ---------------------------------------------------------------------------

const Verdict* FreezeServiceImpl::VerdictAt(Step step) const {
  const absl::Span<const Verdict> verdicts = published();
  auto after =
      std::upper_bound(verdicts.begin(), verdicts.end(), step,
                       [](Step wanted, const Verdict& verdict) { return wanted < verdict.step; });
  return after == verdicts.begin() ? nullptr : &*std::prev(after);
}

grpc::Status FreezeServiceImpl::GetRun(grpc::ServerContext*, const v1::GetRunRequest*,
                                       v1::GetRunResponse* response) {
  absl::MutexLock lock(&mutex_);
  FillRun(*response->mutable_run());
  return grpc::Status::OK;
}

void FreezeServiceImpl::FillRun(v1::Run& run) const {
  run.set_run_id(options_.run_id);
  run.set_state(EncodeState(coordinator_->state()));
  run.set_message(coordinator_->state_message());
  if (end_ && !end_->success) run.set_state(v1::RUN_STATE_FAILED);
  if (end_) run.set_message(end_->reason);
  if (!end_ && !progress_->problem().empty()) run.set_message(progress_->problem());
  run.set_generation(coordinator_->generation().value());
  for (const LayerInfo& layer : coordinator_->layers()) *run.add_layers() = EncodeLayer(layer);
  for (const WorkerId& worker : ranks_) run.add_members(worker.value());
  progress_->Fill(run, progress_length());
  const RunLength& length = coordinator_->length();
  run.set_num_steps(length.num_steps);
  run.set_steps_per_epoch(length.steps_per_epoch);
  run.set_batch_size(options_.batch_size);
  run.set_interval_steps(length.interval_steps);
  const Step step(progress_->steps_done());
  if (const Verdict* current = VerdictAt(step); current != nullptr)
    *run.mutable_current() = EncodeVerdict(*current);
  run.set_num_verdicts(static_cast<int64_t>(published().size()));
  int64_t num_rebalances = 0, num_layers_moved = 0;
  for (const Verdict& verdict : published()) {
    if (verdict.moves.empty() || step < verdict.step) continue;
    ++num_rebalances;
    num_layers_moved += static_cast<int64_t>(verdict.moves.size());
  }
  run.set_num_rebalances(num_rebalances);
  run.set_num_layers_moved(num_layers_moved);
  run.set_speedup_limit(coordinator_->SpeedupLimitOfRun());
  for (const auto& [worker, result] : ended_workers_) *run.add_ended_workers() = result;
  const RunHistory& history = coordinator_->history();
  run.set_first_step(history.first_step.value());
  run.set_num_recoveries(history.num_recoveries);
  run.set_last_fault(history.last_fault);
  if (history.resumed_from) run.set_resumed_from_step(history.resumed_from->value());
  for (const auto& [worker, member] : members_) run.add_connected_workers(worker.value());
}

grpc::Status FreezeServiceImpl::ListDecisions(grpc::ServerContext*,
                                              const v1::ListDecisionsRequest* request,
                                              v1::ListDecisionsResponse* response) {
  if (request->page_size() < 0 || request->page_size() > limits::kDecisionPageMax) {
    return ToGrpcStatus(absl::InvalidArgumentError(
        absl::StrCat("page_size is ", request->page_size(), "; the range is 1 to ",
                     limits::kDecisionPageMax, " (0 = 100)")));
  }
  const int page_size = request->page_size() == 0 ? kPageDefault : request->page_size();
  absl::MutexLock lock(&mutex_);
  const absl::Span<const Verdict> verdicts = published();
  absl::StatusOr<size_t> next = DecodePageToken(request->page_token(), verdicts.size());
  if (!next.ok()) return ToGrpcStatus(next.status());
  size_t page_bytes = 0;
  for (; *next < verdicts.size() && response->verdicts_size() < page_size &&
         page_bytes <= kPageBytesMax;
       ++*next) {
    const Verdict& verdict = verdicts[*next];
    if (request->changes_only() && !IsChange(verdict)) continue;
    *response->add_verdicts() = EncodeVerdict(verdict);
    page_bytes += response->verdicts().rbegin()->ByteSizeLong();
  }
  if (*next < verdicts.size()) response->set_next_page_token(absl::StrCat(*next));
  return grpc::Status::OK;
}

grpc::Status FreezeServiceImpl::StopRun(grpc::ServerContext*, const v1::StopRunRequest* request,
                                        v1::StopRunResponse*) {
  if (const absl::Status status = CheckText("reason", request->reason()); !status.ok())
    return ToGrpcStatus(status);
  absl::MutexLock lock(&mutex_);
  if (!end_) stop_requested_ = true;
  return ToGrpcStatus(ApplyEvent(
      StopRequested{.why = request->reason().empty() ? "an operator stopped it" : request->reason(),
                    .at_boundary = request->at_boundary()}));
}

}  // namespace smartpipe
