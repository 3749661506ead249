// Internal to explain: how much of a core each instruction had.
#pragma once

#include <cstdint>
#include <vector>

#include "cli/run_trace.h"

namespace smartpipe {

/// Where workers share cores and more of them compute at once than there are cores, each has its
/// share of them; else an instruction has a core for as long as it runs.
///
/// Threads: const. Cost: made in O(n log n) of the run's instructions, with 16 bytes for each end;
/// nothing where no cores are shared.
class CoreTime {
 public:
  explicit CoreTime(const RunTrace& run);
  /// Core seconds of one of the run's compute instructions.
  double Seconds(const RunEvent& event) const;

 private:
  double Until(int64_t ns) const;

  std::vector<int64_t> times_ns_;  // at which the number of computing workers changes; ascending
  std::vector<double> core_s_;     // of one that computes all the time, until then
};

}  // namespace smartpipe
