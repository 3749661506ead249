// Clocks of different machines laid over each other.
#pragma once

#include <cstdint>
#include <vector>

#include "services/obs/trace_file.h"

namespace smartpipe {

/// From one worker's clock to the service's, by readings of both.
///
/// Of readings closer together than kCloseNs the one with the least error counts; between those
/// that count the offset changes linearly, before the first and after the last it stays. Without
/// readings the offset is 0.  Threads: pure.
class WorkerClock {
 public:
  static constexpr int64_t kCloseNs = 10'000'000'000;

  WorkerClock() = default;
  explicit WorkerClock(std::vector<ClockReading> readings);

  int64_t OffsetNs(int64_t local_ns) const;
  int64_t ToServiceNs(int64_t local_ns) const { return local_ns + OffsetNs(local_ns); }
  bool measured() const { return !readings_.empty(); }
  /// Largest error of the readings that count; 0 without any.
  int64_t error_ns() const;
  /// Those that count, by time.
  const std::vector<ClockReading>& readings() const { return readings_; }

 private:
  std::vector<ClockReading> readings_;
};

struct WorkerClocks {
  std::vector<WorkerClock> clocks;  // [worker]
  // [worker] the first worker on the same machine's clock, itself if none before: between two with
  // the same there is no error.
  std::vector<int> same_as;
};

/// One clock per list of readings. Workers whose offsets agree within their errors read the same
/// machine's clock (clocks of different machines start at different times): they share all their
/// readings, so that no error stands between them. A worker without readings shares the first
/// clock that has some.
WorkerClocks MakeClocks(const std::vector<std::vector<ClockReading>>& readings);

}  // namespace smartpipe
