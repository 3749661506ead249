#include "freeze_service/core/verdict_history.h"

namespace smartpipe {

void VerdictHistory::Add(const Verdict& verdict) {
  const int64_t boundary = verdict.boundary.value();
  if (boundary == num_decided()) entries_.emplace_back();
  entries_[boundary] = {.step = verdict.step,
                        .frontier = verdict.frontier,
                        .has_plan = verdict.plan.has_value(),
                        .stop = verdict.stop,
                        .checkpoint = verdict.checkpoint,
                        .plan_epoch = verdict.plan_epoch,
                        .reason = verdict.reason,
                        .frontier_reason = verdict.frontier_reason,
                        .moves = verdict.moves,
                        .moved_bytes = verdict.moved_bytes,
                        .predicted_old_step_s = verdict.predicted_old_step_s,
                        .predicted_step_s = verdict.predicted_step_s,
                        .even_step_s = verdict.even_step_s};
  Epoch& epoch = epochs_[verdict.plan_epoch];
  if (epoch.cuts.empty()) epoch.cuts = verdict.cuts;
  if (verdict.plan.has_value()) epoch.plan = verdict.plan;
  num_in_force_ = boundary + 1;
}

const Plan* VerdictHistory::FindPlan(PlanEpoch epoch) const {
  const auto found = epochs_.find(epoch);
  return found == epochs_.end() || !found->second.plan.has_value() ? nullptr : &*found->second.plan;
}

Verdict VerdictHistory::at(IntervalIndex boundary) const {
  const Entry& entry = this->entry(boundary);
  const Epoch& epoch = epochs_.at(entry.plan_epoch);
  return {.boundary = boundary,
          .step = entry.step,
          .plan = entry.has_plan ? epoch.plan : std::nullopt,
          .reason = entry.reason,
          .frontier_reason = entry.frontier_reason,
          .stop = entry.stop,
          .checkpoint = entry.checkpoint,
          .frontier = entry.frontier,
          .cuts = epoch.cuts,
          .plan_epoch = entry.plan_epoch,
          .moves = entry.moves,
          .moved_bytes = entry.moved_bytes,
          .predicted_old_step_s = entry.predicted_old_step_s,
          .predicted_step_s = entry.predicted_step_s,
          .even_step_s = entry.even_step_s,
          .eta = {}};
}

}  // namespace smartpipe
