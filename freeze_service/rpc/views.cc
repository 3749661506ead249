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
#include "services/obs/log.h"
#include "services/rpc/plan_proto.h"
#include "services/rpc/status.h"

namespace smartpipe {
namespace {

constexpr int kPageDefault = 100;
// A page ends once it is over this; one verdict is far smaller.
constexpr size_t kPageBytesMax = limits::kGrpcMessageBytesMax / 2;
constexpr double kStepPeriodMaxS = 3600;

absl::StatusOr<IntervalIndex> DecodePageToken(const std::string& token, int64_t num_verdicts) {
  int64_t first = 0;
  if (token.empty()) return IntervalIndex(0);
  const bool digits =
      std::all_of(token.begin(), token.end(), [](char c) { return c >= '0' && c <= '9'; });
  if (digits && absl::SimpleAtoi(token, &first) && first <= num_verdicts) {
    return IntervalIndex(first);
  }
  return absl::InvalidArgumentError(
      "page_token is not one that this service gave; take next_page_token as it is");
}

}  // namespace

std::optional<IntervalIndex> FreezeServiceImpl::BoundaryAt(Step step) const {
  if (num_published() == 0) return std::nullopt;
  return std::min(coordinator_->length().boundary_at(step), IntervalIndex(num_published() - 1));
}

Verdict FreezeServiceImpl::WholeVerdict(IntervalIndex boundary) const {
  absl::StatusOr<Verdict> read = store_->ReadVerdict(boundary);
  if (read.ok()) return *std::move(read);
  LogWarning("the statistics of boundary ", boundary.value(),
             " cannot be read from the log: ", read.status().message());
  return coordinator_->verdicts().at(boundary);
}

const Plan& FreezeServiceImpl::PlanAt(Step step) const {
  const RunHistory& history = coordinator_->history();
  const std::optional<IntervalIndex> boundary = BoundaryAt(step);
  if (!boundary.has_value() || step <= history.first_step) return history.start_plan;
  const PlanEpoch epoch = coordinator_->verdicts().plan_epoch(*boundary);
  if (epoch <= history.start_plan.plan_epoch) return history.start_plan;
  const Plan* const plan = coordinator_->verdicts().FindPlan(epoch);
  return plan == nullptr ? history.start_plan : *plan;
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
  if (IsStopped()) run.set_state(v1::RUN_STATE_STOPPED);
  if (HasFailed()) run.set_state(v1::RUN_STATE_FAILED);
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
  const VerdictHistory& verdicts = coordinator_->verdicts();
  const std::optional<IntervalIndex> current = BoundaryAt(step);
  if (current.has_value()) {
    *run.mutable_current() = EncodeVerdict(WholeVerdict(*current));
  }
  run.set_num_verdicts(num_published());
  int64_t num_rebalances = 0, num_layers_moved = 0;
  for (IntervalIndex b(0); current.has_value() && b <= *current; ++b) {
    num_rebalances += verdicts.num_moves(b) > 0 ? 1 : 0;
    num_layers_moved += verdicts.num_moves(b);
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
  const std::optional<IntervalIndex> current = BoundaryAt(step);
  if (!current.has_value()) return grpc::Status::OK;  // no layers are known before the start
  const VerdictHistory& verdicts = coordinator_->verdicts();
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
    status.set_frozen(layer < verdicts.frontier(*current));
    if (!status.frozen()) continue;
    // The newest verdict that froze it.
    IntervalIndex since = *current;
    while (since.value() > 0 && layer < verdicts.frontier(since - 1)) --since;
    status.set_frozen_since_step(verdicts.step(since).value());
    status.set_frozen_reason(verdicts.reason(since));
  }
  return grpc::Status::OK;
}

grpc::Status FreezeServiceImpl::GetPlan(grpc::ServerContext*, const v1::GetPlanRequest*,
                                        v1::GetPlanResponse* response) {
  absl::MutexLock lock(&mutex_);
  const Step step(progress_->steps_done());
  const std::optional<IntervalIndex> current = BoundaryAt(step);
  if (!current.has_value()) {
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
  const Verdict verdict = coordinator_->verdicts().at(*current);
  response->set_predicted_step_s(verdict.predicted_step_s);
  response->set_even_step_s(verdict.even_step_s);
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
  std::optional<IntervalIndex> next;
  size_t page_bytes = 0;
  while (true) {
    // Not for the whole page: each is read from the log, and reports must not wait for all.
    absl::MutexLock lock(&mutex_);
    if (!next.has_value()) {
      const absl::StatusOr<IntervalIndex> first =
          DecodePageToken(request->page_token(), num_published());
      if (!first.ok()) return ToGrpcStatus(first.status());
      next = *first;
    }
    const VerdictHistory& verdicts = coordinator_->verdicts();
    while (request->changes_only() && next->value() < num_published() && !verdicts.has_plan(*next))
      ++*next;
    if (next->value() >= num_published()) return grpc::Status::OK;
    if (response->verdicts_size() == page_size || page_bytes > kPageBytesMax) {
      response->set_next_page_token(absl::StrCat(next->value()));
      return grpc::Status::OK;
    }
    *response->add_verdicts() = EncodeVerdict(WholeVerdict(*next));
    page_bytes += response->verdicts().rbegin()->ByteSizeLong();
    ++*next;
  }
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
