#include "cli/core_time.h"

#include <algorithm>
#include <utility>

namespace smartpipe {

CoreTime::CoreTime(const RunTrace& run) {
  if (!run.shares_cores()) return;
  std::vector<std::pair<int64_t, int>> changes;
  for (const WorkerTrace& worker : run.workers) {
    for (const RunStep& step : worker.steps) {
      for (const RunEvent& event : step.events) {
        if (!IsCompute(event.instruction.op)) continue;
        changes.emplace_back(event.start_ns, 1);
        changes.emplace_back(event.end_ns, -1);
      }
    }
  }
  std::sort(changes.begin(), changes.end());
  int num_busy = 0;
  double core_s = 0;
  for (const auto& [ns, change] : changes) {
    if (!times_ns_.empty()) {
      const double share =
          std::min(1.0, static_cast<double>(run.num_cores()) / std::max(num_busy, 1));
      core_s += share * static_cast<double>(ns - times_ns_.back()) / 1e9;
    }
    times_ns_.push_back(ns);
    core_s_.push_back(core_s);
    num_busy += change;
  }
}

double CoreTime::Seconds(const RunEvent& event) const {
  if (times_ns_.empty()) return static_cast<double>(event.ns()) / 1e9;
  return Until(event.end_ns) - Until(event.start_ns);
}

double CoreTime::Until(int64_t ns) const {
  const auto at = std::lower_bound(times_ns_.begin(), times_ns_.end(), ns);
  return core_s_[at - times_ns_.begin()];
}

}  // namespace smartpipe
