// A run's trace for ui.perfetto.dev: JSON in the Chrome trace event format.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "cli/run_trace.h"

namespace smartpipe {

/// What a browser's tab can take; some 2 million events.
inline constexpr int64_t kPerfettoBytesMax = int64_t{256} << 20;

struct PerfettoResult {
  int64_t end_step = 0;  // steps before it are in the file: less than asked for if it got too large
  int64_t num_events = 0;
  int64_t bytes = 0;
};

/// Writes steps [first_step, end_step): a process per worker with threads for compute, sends, waits
/// and control, an arrow per message from send to receive, and the decisions as instants with their
/// reason. Step by step, so that memory stays small; to a temporary file that is renamed.
/// Stops before `bytes_max`, at the end of a step.
/// Errors: the system's reason with the path.
absl::StatusOr<PerfettoResult> WritePerfetto(const RunTrace& run, int64_t first_step,
                                             int64_t end_step, const std::string& path,
                                             int64_t bytes_max = kPerfettoBytesMax);

}  // namespace smartpipe
