// Durations, on the monotonic clock or of this thread's own work, and medians of them.
#pragma once

#include <time.h>

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "services/obs/trace_file.h"

namespace smartpipe {

/// Nanoseconds that this thread has computed: what its work costs, whoever else uses the cores.
/// With more threads than one, those of the thread that starts and awaits the others.  Cost: about
/// 0.3 us.
inline int64_t WorkNs() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

/// Seconds since construction or the last Restart, by the clock `NowNs`.
template <int64_t (*NowNs)()>
class StopwatchOf {
 public:
  int64_t start_ns() const { return start_ns_; }
  double seconds() const { return Seconds(NowNs() - start_ns_); }
  double Restart() {
    const int64_t now_ns = NowNs();
    return Seconds(now_ns - std::exchange(start_ns_, now_ns));
  }

 private:
  static double Seconds(int64_t ns) { return static_cast<double>(ns) * 1e-9; }
  int64_t start_ns_ = NowNs();
};

/// On the clock of traces.
using Stopwatch = StopwatchOf<MonotonicNs>;
using WorkStopwatch = StopwatchOf<WorkNs>;

/// Lower median; `when_empty` if there are no values. Reorders `values`.
inline double Median(std::vector<double>& values, double when_empty = 0) {
  if (values.empty()) return when_empty;
  auto middle = values.begin() + static_cast<std::ptrdiff_t>((values.size() - 1) / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

}  // namespace smartpipe
