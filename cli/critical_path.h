// Internal to explain: what a step's end waited for.
#pragma once

#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "cli/message_key.h"
#include "cli/run_trace.h"

namespace smartpipe {

/// The path that decides how long a step takes: from its last optimizer back through what each
/// instruction waited for, which is whatever ended last of
///   - what the same worker did before,
///   - for a wait for a message, its send,
///   - for a send that waited for a credit, what gave it back: the use of an earlier message of its
///     edge, or what its peer did before it began the step whose messages it then takes.
/// Time off this path lengthens no step. `run` must outlive it.
class CriticalPath {
 public:
  /// Of steps [first_step, end_step), under one plan.
  CriticalPath(const RunTrace& run, int64_t first_step, int64_t end_step);

  /// Whether a send waited for its credit.
  bool IsHeldUp(int64_t step, const RunEvent& send) const;
  struct Waits {
    int64_t verdict_ns = 0;
    int64_t sent_message_ns = 0;  // for messages whose sends had ended when the wait began
  };
  /// What the path waits for in the time from from_ns to the end of `step`.
  Waits WaitsOf(int64_t step, int64_t from_ns) const;

 private:
  struct Activity {
    int64_t step = 0;
    int64_t start_ns = 0, end_ns = 0;
    const RunEvent* event = nullptr;  // null: a span
    bool is_verdict = false;
  };
  struct Place {
    size_t worker = 0, index = 0;
  };
  const Activity& At(const Place& place) const { return activities_[place.worker][place.index]; }
  void Index(const Place& place);
  const Place* CreditOf(int64_t step, const RunEvent& send) const;
  const Place* CauseOf(const Activity& activity) const;

  const RunTrace& run_;
  std::vector<std::vector<Activity>> activities_;  // [worker], by time
  std::map<MessageKey, Place> sends_, uses_;       // uses: the instruction that reads a message
  std::map<std::pair<size_t, int64_t>, Place> begins_;  // [worker, step] what came before it
  std::map<int64_t, Place> ends_;                       // [step] its last optimizer
};

}  // namespace smartpipe
