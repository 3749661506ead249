#include "cli/critical_path.h"

#include <algorithm>

namespace smartpipe {

CriticalPath::CriticalPath(const RunTrace& run, int64_t first_step, int64_t end_step)
    : run_(run), activities_(run.workers.size()) {
  // A credit may have been taken in the step before.
  const int64_t from_step = std::max(first_step - 1, run.first_step);
  for (size_t w = 0; w < run.workers.size(); ++w) {
    std::vector<Activity>& activities = activities_[w];
    for (int64_t step = from_step; step < end_step; ++step) {
      for (const TraceSpan& span : run.workers[w].SpansBefore(step))
        activities.push_back(
            {step, span.start_ns, span.end_ns, nullptr, span.name == "verdict_wait"});
      const RunStep* found = run.workers[w].FindStep(step);
      if (found == nullptr) continue;
      for (const RunEvent& event : found->events)
        activities.push_back({step, event.start_ns, event.end_ns, &event});
    }
    std::stable_sort(activities.begin(), activities.end(),
                     [](const Activity& a, const Activity& b) { return a.start_ns < b.start_ns; });
    for (size_t i = 0; i < activities.size(); ++i) Index({w, i});
  }
}

void CriticalPath::Index(const Place& place) {
  const Activity& activity = At(place);
  if (activity.event == nullptr) return;
  const Instruction& instruction = activity.event->instruction;
  const int64_t step = activity.step;
  const int stage = instruction.stage.value(), mb = instruction.microbatch.value();
  switch (instruction.op) {
    case Op::kSendForward:
    case Op::kSendBackward:
      sends_[KeyOf(step, instruction)] = place;
      break;
    case Op::kForward:
      uses_[{step, stage - 1, true, mb}] = place;
      break;
    case Op::kBackward:
    case Op::kInputGrad:
      uses_[{step, stage, false, mb}] = place;
      break;
    case Op::kOptimize: {
      const auto [end, is_first] = ends_.try_emplace(step, place);
      if (!is_first && At(end->second).end_ns < activity.end_ns) end->second = place;
      break;
    }
    default:
      break;
  }
}

const CriticalPath::Place* CriticalPath::CreditOf(int64_t step, const RunEvent& send) const {
  const auto [unused, edge, activation, mb] = KeyOf(step, send.instruction);
  const std::vector<int32_t>& credits = run_.PlanAt(step).credits;
  if (edge < 0 || edge >= static_cast<int>(credits.size())) return nullptr;
  const int64_t num_microbatches = run_.header().num_microbatches;
  const int64_t before = step * num_microbatches + mb - credits[edge];
  if (before < 0) return nullptr;
  const auto used = uses_.find(
      {before / num_microbatches, edge, activation, static_cast<int>(before % num_microbatches)});
  return used == uses_.end() ? nullptr : &used->second;
}

bool CriticalPath::IsHeldUp(int64_t step, const RunEvent& send) const {
  const Place* credit = CreditOf(step, send);
  return credit != nullptr && At(*credit).end_ns > send.start_ns;
}

// Null: what the same worker did before.
const CriticalPath::Place* CriticalPath::CauseOf(const Activity& activity) const {
  if (activity.event == nullptr) return nullptr;
  const Op op = activity.event->instruction.op;
  const Place* cause = nullptr;
  if (IsSend(op)) cause = CreditOf(activity.step, *activity.event);
  if (IsReceive(op)) {
    const auto send = sends_.find(KeyOf(activity.step, activity.event->instruction));
    if (send != sends_.end()) cause = &send->second;
  }
  return cause != nullptr && At(*cause).end_ns > activity.start_ns ? cause : nullptr;
}

int64_t CriticalPath::VerdictNs(int64_t step, int64_t from_ns) const {
  const auto end = ends_.find(step);
  if (end == ends_.end()) return 0;
  Place place = end->second;
  int64_t until_ns = At(place).end_ns, verdict_ns = 0;
  size_t num_left = 0;  // a file may hold instructions that wait for each other in a circle
  for (const std::vector<Activity>& activities : activities_) num_left += activities.size();
  for (; num_left > 0 && At(place).end_ns > from_ns; --num_left) {
    const Activity& activity = At(place);
    const int64_t start_ns = std::max(activity.start_ns, from_ns);
    if (activity.is_verdict)
      verdict_ns += std::max<int64_t>(0, std::min(activity.end_ns, until_ns) - start_ns);
    const Place* cause = CauseOf(activity);
    until_ns = std::min(until_ns, cause != nullptr ? At(*cause).end_ns : start_ns);
    if (cause != nullptr) {
      place = *cause;
    } else if (place.index > 0) {
      --place.index;
    } else {
      break;
    }
  }
  return verdict_ns;
}

}  // namespace smartpipe
