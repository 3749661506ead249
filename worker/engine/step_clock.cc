#include "worker/engine/step_clock.h"

#include <utility>

namespace smartpipe {

void StepClock::Begin(Step step) {
  if (device_.is_cpu()) {
    if (trace_ == nullptr) return;
    traced_ = {.step = step.value(), .events = {}};
    mark_ns_ = MonotonicNs();
    return;
  }
  while (started_.size() >= kStepsAheadMax) Resolve();
  current_ = {.step = step, .marks = {}, .end = nullptr};
  if (trace_ == nullptr) return;
  if (anchor_ == nullptr) {
    anchor_ = RecordEvent(device_);
    anchor_->synchronize();
    anchor_ns_ = static_cast<double>(MonotonicNs());
  }
  current_.marks.emplace_back("", RecordEvent(device_));
}

void StepClock::Mark(const Instruction& instruction) {
  if (trace_ == nullptr) return;
  if (!device_.is_cpu()) {
    current_.marks.emplace_back(Format(instruction), RecordEvent(device_));
    return;
  }
  const int64_t now_ns = MonotonicNs();
  traced_.events.push_back({Format(instruction), mark_ns_, now_ns});
  mark_ns_ = now_ns;
}

void StepClock::End() {
  if (device_.is_cpu()) {
    if (trace_ != nullptr) trace_->Add(std::move(traced_));
    return;
  }
  current_.end = RecordEvent(device_);
  started_.push_back(std::move(current_));
}

void StepClock::Finish() {
  while (!started_.empty()) Resolve();
  if (!device_.is_cpu()) RecordEvent(device_)->synchronize();
}

void StepClock::Resolve() {
  const Started done = std::move(started_.front());
  started_.pop_front();
  done.end->synchronize();
  if (trace_ == nullptr) return;
  TraceStep traced{.step = done.step.value(), .events = {}};
  // From mark to mark, so that the rounding of long times does not add up.
  for (const auto& [name, event] : done.marks) {
    const double end_ns = anchor_ns_ + anchor_->elapsedTime(*event) * 1e6;
    if (!name.empty()) {
      traced.events.push_back(
          {name, static_cast<int64_t>(anchor_ns_), static_cast<int64_t>(end_ns)});
    }
    anchor_ = event;
    anchor_ns_ = end_ns;
  }
  trace_->Add(std::move(traced));
}

}  // namespace smartpipe
