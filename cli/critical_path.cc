#include "cli/critical_path.h"

#include <algorithm>

namespace smartpipe {
namespace {

constexpr int64_t kRoundingNs = 1000;  // files hold microseconds

}  // namespace

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
  if (place.index > 0)
    begins_.try_emplace({place.worker, activity.step}, Place{place.worker, place.index - 1});
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

// An edge has its credits at each of its ends. A message holds one of its sender until a buffer of
// the peer takes it. The peer has as many, for messages of the step that it runs; one is free again
// when what was in it has been used.
const CriticalPath::Place* CriticalPath::CreditOf(int64_t step, const RunEvent& send) const {
  const auto [unused, edge, activation, mb] = KeyOf(step, send.instruction);
  const TracePlan& plan = run_.PlanAt(step);
  if (edge < 0 || edge >= static_cast<int>(plan.credits.size())) return nullptr;
  const int64_t num_microbatches = run_.header().num_microbatches;
  const int64_t credits = plan.credits[edge];
  const int64_t holder = step * num_microbatches + mb - credits;
  if (holder < 0) return nullptr;
  const Place* last = nullptr;
  const auto consider = [&](const auto& places, const auto& key) {
    const auto found = places.find(key);
    if (found == places.end()) return;
    const int64_t end_ns = At(found->second).end_ns;
    if (end_ns <= send.start_ns || end_ns > send.end_ns + kRoundingNs) return;
    if (last == nullptr || end_ns > At(*last).end_ns) last = &found->second;
  };
  const size_t peer = plan.stage_to_rank[activation ? edge + 1 : edge];
  consider(begins_, std::pair(peer, holder / num_microbatches));
  for (int64_t used = std::max<int64_t>(0, holder - credits); used <= holder; ++used) {
    consider(uses_, MessageKey(used / num_microbatches, edge, activation,
                               static_cast<int>(used % num_microbatches)));
  }
  return last;
}

bool CriticalPath::IsHeldUp(int64_t step, const RunEvent& send) const {
  return CreditOf(step, send) != nullptr;
}

// Null: what the same worker did before.
const CriticalPath::Place* CriticalPath::CauseOf(const Activity& activity) const {
  if (activity.event == nullptr) return nullptr;
  const Op op = activity.event->instruction.op;
  if (IsSend(op)) return CreditOf(activity.step, *activity.event);
  if (!IsReceive(op)) return nullptr;
  const auto send = sends_.find(KeyOf(activity.step, activity.event->instruction));
  return send != sends_.end() && At(send->second).end_ns > activity.start_ns ? &send->second
                                                                             : nullptr;
}

CriticalPath::Waits CriticalPath::WaitsOf(int64_t step, int64_t from_ns) const {
  Waits waits;
  const auto end = ends_.find(step);
  if (end == ends_.end()) return waits;
  Place place = end->second;
  int64_t until_ns = At(place).end_ns;
  size_t num_left = 0;  // a file may hold instructions that wait for each other in a circle
  for (const std::vector<Activity>& activities : activities_) num_left += activities.size();
  for (; num_left > 0 && At(place).end_ns > from_ns; --num_left) {
    const Activity& activity = At(place);
    const int64_t start_ns = std::max(activity.start_ns, from_ns);
    const Place* cause = CauseOf(activity);
    const bool waits_for_sent =
        cause == nullptr && activity.event != nullptr && IsReceive(activity.event->instruction.op);
    const int64_t ns = std::max<int64_t>(0, std::min(activity.end_ns, until_ns) - start_ns);
    if (activity.is_verdict) waits.verdict_ns += ns;
    if (waits_for_sent) waits.sent_message_ns += ns;
    until_ns = std::min(until_ns, cause != nullptr ? At(*cause).end_ns : start_ns);
    if (cause != nullptr) {
      place = *cause;
    } else if (place.index > 0) {
      --place.index;
    } else {
      break;
    }
  }
  return waits;
}

}  // namespace smartpipe
