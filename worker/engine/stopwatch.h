// Durations on the monotonic clock, and medians of them.
#pragma once

#include <algorithm>
#include <chrono>
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

/// Lower median; `when_empty` if there are no values. Reorders `values`.
inline double Median(std::vector<double>& values, double when_empty = 0) {
  if (values.empty()) return when_empty;
  auto middle = values.begin() + static_cast<std::ptrdiff_t>((values.size() - 1) / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

}  // namespace smartpipe
