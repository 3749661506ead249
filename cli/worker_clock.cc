#include "cli/worker_clock.h"

#include <algorithm>
#include <cstdlib>

namespace smartpipe {
namespace {

bool Agree(const WorkerClock& a, const WorkerClock& b) {
  const int64_t error_ns = a.error_ns() + b.error_ns();
  const auto agrees_at = [&](const ClockReading& reading) {
    return std::llabs(a.OffsetNs(reading.local_ns) - b.OffsetNs(reading.local_ns)) <= error_ns;
  };
  return std::all_of(a.readings().begin(), a.readings().end(), agrees_at) &&
         std::all_of(b.readings().begin(), b.readings().end(), agrees_at);
}

}  // namespace

WorkerClock::WorkerClock(std::vector<ClockReading> readings) {
  std::stable_sort(
      readings.begin(), readings.end(),
      [](const ClockReading& a, const ClockReading& b) { return a.error_ns < b.error_ns; });
  const auto by_time = [](const ClockReading& a, const ClockReading& b) {
    return a.local_ns < b.local_ns;
  };
  for (const ClockReading& reading : readings) {
    const auto after = std::lower_bound(readings_.begin(), readings_.end(), reading, by_time);
    if (after != readings_.end() && after->local_ns - reading.local_ns < kCloseNs) continue;
    if (after != readings_.begin() && reading.local_ns - std::prev(after)->local_ns < kCloseNs)
      continue;
    readings_.insert(after, reading);
  }
}

int64_t WorkerClock::OffsetNs(int64_t local_ns) const {
  if (readings_.empty()) return 0;
  const auto after = std::lower_bound(
      readings_.begin(), readings_.end(), local_ns,
      [](const ClockReading& reading, int64_t ns) { return reading.local_ns < ns; });
  if (after == readings_.end()) return readings_.back().offset_ns;
  if (after == readings_.begin()) return after->offset_ns;
  const ClockReading& before = *std::prev(after);
  const double share = static_cast<double>(local_ns - before.local_ns) /
                       static_cast<double>(after->local_ns - before.local_ns);
  return before.offset_ns +
         static_cast<int64_t>(share * static_cast<double>(after->offset_ns - before.offset_ns));
}

int64_t WorkerClock::error_ns() const {
  int64_t error_ns = 0;
  for (const ClockReading& reading : readings_) error_ns = std::max(error_ns, reading.error_ns);
  return error_ns;
}

WorkerClocks MakeClocks(const std::vector<std::vector<ClockReading>>& readings) {
  const int num_workers = static_cast<int>(readings.size());
  WorkerClocks result;
  std::vector<std::vector<ClockReading>> shared(readings.size());  // [first worker of its machine]
  int first_measured = 0;
  while (first_measured < num_workers && readings[first_measured].empty()) ++first_measured;
  if (first_measured == num_workers) first_measured = 0;  // none: all share offset 0
  for (int i = 0; i < num_workers; ++i) {
    const WorkerClock clock(readings[i]);
    int same_as = i;
    if (!clock.measured()) {
      same_as = first_measured;
    } else {
      for (int j = 0; j < i && same_as == i; ++j) {
        if (result.same_as[j] == j && result.clocks[j].measured() && Agree(result.clocks[j], clock))
          same_as = j;
      }
    }
    result.clocks.push_back(clock);
    result.same_as.push_back(same_as);
    shared[same_as].insert(shared[same_as].end(), readings[i].begin(), readings[i].end());
  }
  for (int i = 0; i < num_workers; ++i) result.clocks[i] = WorkerClock(shared[result.same_as[i]]);
  return result;
}

}  // namespace smartpipe
