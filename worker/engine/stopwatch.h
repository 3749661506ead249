// Durations, on the monotonic clock or of this thread's own work, and medians of them.
#pragma once

#include <time.h>

#include <algorithm>
#include <chrono>
#include <utility>
#include <vector>

namespace smartpipe {

/// Seconds since construction or the last Restart.
class Stopwatch {
 public:
  double seconds() const { return std::chrono::duration<double>(Clock::now() - start_).count(); }
  double Restart() {
    const Clock::time_point now = Clock::now();
    const double elapsed_s = std::chrono::duration<double>(now - start_).count();
    start_ = now;
    return elapsed_s;
  }

 private:
  using Clock = std::chrono::steady_clock;
  Clock::time_point start_ = Clock::now();
};

/// Seconds that this thread computed since construction: what its work costs, whoever else uses the
/// cores. With more threads than one, those of the thread that starts and awaits the others.  Cost:
/// about 0.3 us a reading.
class WorkStopwatch {
 public:
  double seconds() const { return Now() - start_s_; }
  double Restart() {
    const double now_s = Now();
    return now_s - std::exchange(start_s_, now_s);
  }

 private:
  static double Now() {
    timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
  }
  double start_s_ = Now();
};

/// Lower median; `when_empty` if there are no values. Reorders `values`.
inline double Median(std::vector<double>& values, double when_empty = 0) {
  if (values.empty()) return when_empty;
  auto middle = values.begin() + static_cast<std::ptrdiff_t>((values.size() - 1) / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

}  // namespace smartpipe
