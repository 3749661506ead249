// What people and programs can ask of a run: its state, workers, layers, plan and verdicts, and the
// stream of what happens.
#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "freeze_service/rpc/codec.h"
#include "freeze_service/rpc/freeze_service_impl.h"
#include "services/base/limits.h"
#include "services/base/version.h"
#include "services/rpc/plan_proto.h"
#include "services/rpc/status.h"

namespace smartpipe {
namespace {

constexpr int kPageDefault = 100;
// A page ends once it is over this; one verdict is far smaller.
constexpr size_t kPageBytesMax = limits::kGrpcMessageBytesMax / 2;
constexpr double kStepPeriodMaxS = 3600;

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

const Verdict* FreezeServiceImpl::VerdictAt(Step step) const {
  const absl::Span<const Verdict> verdicts = published();
  auto after =
      std::upper_bound(verdicts.begin(), verdicts.end(), step,
                       [](Step value, const Verdict& verdict) { return value < verdict.step; });
  return after == verdicts.begin() ? nullptr : &*std::prev(after);
}

const Plan& FreezeServiceImpl::PlanAt(Step step) const {
  const absl::Span<const Verdict> verdicts = published();
  const RunHistory& history = coordinator_->history();
  for (auto verdict = verdicts.rbegin(); verdict != verdicts.rend(); ++verdict) {
    if (verdict->step <= history.first_step) break;
    if (verdict->plan.has_value() && verdict->step <= step) return *verdict->plan;
  }
  return history.start_plan;
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
  if (end_ && !end_->success)
    run.set_state(IsStopped() ? v1::RUN_STATE_STOPPED : v1::RUN_STATE_FAILED);
  if (end_) run.set_message(end_->reason);
  if (!end_ && !progress_->problem().empty()) run.set_message(progress_->problem());
  run.set_generation(coordinator_->generation().value());
  for (const LayerInfo& layer : coordinator_->evidence().layers)
    *run.add_layers() = EncodeLayer(layer);
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
  run.set_paused(IsHeld());
  run.set_version(SMARTPIPE_VERSION);
  run.set_now_us(absl::ToUnixMicros(clock_->Now()));
  for (const WorkerId& worker : coordinator_->orders().drained)
    run.add_drained_workers(worker.value());
}

grpc::Status FreezeServiceImpl::ListWorkers(grpc::ServerContext*, const v1::ListWorkersRequest*,
                                            v1::ListWorkersResponse* response) {
  absl::MutexLock lock(&mutex_);
  const Plan& plan = PlanAt(Step(progress_->steps_done()));
  const auto num_layers = static_cast<int32_t>(coordinator_->evidence().layers.size());
  PlannerInput planner;
  std::vector<StageCost> costs;  // [stage] of a micro-batch
  if (!ranks_.empty()) {
    planner = coordinator_->planner_input();
    planner.frontier = plan.frontier;
    costs = StageCosts(planner, plan.cuts);
  }
  const auto add = [&](const WorkerId& worker) ABSL_NO_THREAD_SAFETY_ANALYSIS {
    v1::WorkerStatus& status = *response->add_workers();
    status.set_worker_id(worker.value());
    if (const auto open = members_.find(worker); open != members_.end()) {
      status.set_connected(true);
      status.set_address(open->second.address);
    }
    status.set_finished(ended_workers_.contains(worker));
    if (const auto last = last_reports_.find(worker); last != last_reports_.end()) {
      status.set_intervals_reported(last->second.interval.value() + 1);
      status.set_step_s(last->second.step_s);
      status.set_verdict_wait_s(last->second.verdict_wait_s);
    }
    return &status;
  };
  for (size_t rank = 0; rank < ranks_.size(); ++rank) {
    v1::WorkerStatus* status = add(ranks_[rank]);
    status->set_rank(static_cast<int32_t>(rank));
    double work_s = 0;
    for (int32_t stage = 0; stage < plan.num_stages(); ++stage) {
      if (plan.placement[stage].front() != ranks_[rank]) continue;
      status->add_stages(stage);
      const LayerRange range = StageLayers(plan, num_layers, StageIndex(stage));
      for (LayerIndex layer = range.first_layer; layer < range.end_layer; ++layer)
        status->add_layers(layer.value());
      const StageCost& cost = costs[stage];
      work_s +=
          planner.num_microbatches * (cost.forward_s + cost.input_grad_s + cost.weight_grad_s) +
          cost.optimize_s;
    }
    status->set_work_s(work_s);
  }
  for (const auto& [worker, member] : members_) {
    if (std::find(ranks_.begin(), ranks_.end(), worker) == ranks_.end()) add(worker);
  }
  for (const WorkerId& worker : coordinator_->orders().drained) {
    if (std::find(ranks_.begin(), ranks_.end(), worker) == ranks_.end())
      add(worker)->set_drained(true);
  }
  return grpc::Status::OK;
}

grpc::Status FreezeServiceImpl::ListLayers(grpc::ServerContext*, const v1::ListLayersRequest*,
                                           v1::ListLayersResponse* response) {
  absl::MutexLock lock(&mutex_);
  const Step step(progress_->steps_done());
  const Verdict* const current = VerdictAt(step);
  if (current == nullptr) return grpc::Status::OK;  // no layers are known before the start
  const Evidence& evidence = coordinator_->evidence();
  const Plan& plan = PlanAt(step);
  for (size_t i = 0; i < evidence.layers.size(); ++i) {
    const LayerIndex layer(static_cast<int32_t>(i));
    v1::LayerStatus& status = *response->add_layers();
    status.set_layer(layer.value());
    status.set_name(evidence.layers[i].name);
    *status.mutable_cost() = ToProto(evidence.layers[i].cost);
    const StageIndex stage = StageOfLayer(plan.cuts, layer);
    status.set_stage(stage.value());
    status.set_worker_id(plan.placement[stage.value()].front().value());
    for (const std::vector<double>& etas : evidence.eta_history) status.add_eta_history(etas[i]);
    status.set_eta(evidence.eta_history.empty() ? std::nan("") : evidence.eta_history.back()[i]);
    if (!evidence.no_evidence.empty()) status.set_no_evidence(evidence.no_evidence[i]);
    status.set_frozen(layer < current->frontier);
    if (!status.frozen()) continue;
    // The newest verdict that froze it.
    const absl::Span<const Verdict> verdicts = published();
    auto since = static_cast<size_t>(current - verdicts.data());
    while (since > 0 && layer < verdicts[since - 1].frontier) --since;
    status.set_frozen_since_step(verdicts[since].step.value());
    status.set_frozen_reason(verdicts[since].reason);
  }
  return grpc::Status::OK;
}

grpc::Status FreezeServiceImpl::GetPlan(grpc::ServerContext*, const v1::GetPlanRequest*,
                                        v1::GetPlanResponse* response) {
  absl::MutexLock lock(&mutex_);
  const Step step(progress_->steps_done());
  const Verdict* const current = VerdictAt(step);
  if (current == nullptr) {
    return ToGrpcStatus(absl::FailedPreconditionError(
        absl::StrCat("the run has no plan yet: ", coordinator_->state_message())));
  }
  const Plan& plan = PlanAt(step);
  *response->mutable_plan() = ToProto(plan);
  const std::optional<Plan>& newest = coordinator_->plan();
  if (newest.has_value() && newest->plan_epoch > plan.plan_epoch)
    *response->mutable_next() = ToProto(*newest);
  response->set_stages(FormatCuts(
      plan.cuts, static_cast<int32_t>(coordinator_->evidence().layers.size()), plan.frontier));
  response->set_predicted_step_s(current->predicted_step_s);
  response->set_even_step_s(current->even_step_s);
  return grpc::Status::OK;
}

grpc::Status FreezeServiceImpl::ListVerdicts(grpc::ServerContext*,
                                             const v1::ListVerdictsRequest* request,
                                             v1::ListVerdictsResponse* response) {
  if (request->page_size() < 0 || request->page_size() > limits::kDecisionPageMax) {
    return ToGrpcStatus(absl::InvalidArgumentError(
        absl::StrCat("page_size is ", request->page_size(), "; the range is 1 to ",
                     limits::kDecisionPageMax, " (0 = ", kPageDefault, ")")));
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
    if (request->changes_only() && !verdict.plan.has_value()) continue;
    *response->add_verdicts() = EncodeVerdict(verdict);
    page_bytes += response->verdicts().rbegin()->ByteSizeLong();
  }
  if (*next < verdicts.size()) response->set_next_page_token(absl::StrCat(*next));
  return grpc::Status::OK;
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* FreezeServiceImpl::WatchRun(
    grpc::CallbackServerContext*, const grpc::ByteBuffer* bytes) {
  v1::WatchRunRequest request;
  if (const grpc::Status decoded = DecodeMessage(*bytes, &request); !decoded.ok())
    return Watchers::Refuse(decoded).get();
  const double period_s = request.step_period_s();
  if (!(period_s >= 0 && period_s <= kStepPeriodMaxS)) {
    return Watchers::Refuse(
               ToGrpcStatus(absl::InvalidArgumentError(absl::StrCat(
                   "step_period_s is ", period_s, "; the range is 0 to ", kStepPeriodMaxS))))
        .get();
  }
  absl::MutexLock lock(&mutex_);
  v1::Run run;
  FillRun(run);
  return watchers_.Add(absl::Seconds(period_s), std::move(run)).get();
}

}  // namespace smartpipe
