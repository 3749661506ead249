// One training run on this machine, from checked config to result.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "cli/display.h"
#include "cli/preflight.h"
#include "cli/run_result.h"

namespace smartpipe {

/// Starts the processes, shows the run until it ends, and writes RUN/summary.json. Processes that
/// are killed, or stand still, are started again. A stop signal asks the run to stop behind a
/// checkpoint, a second one stops it at once.
///
/// `resume`: "" = a new run; else as the freeze service's --resume.
/// Errors: CANCELLED after a stop signal; anything else when the run failed: the message is
/// complete, of several lines, for people. In each case no process is left.  Threads: the main
/// thread only.
absl::StatusOr<RunResult> TrainLocally(const CheckedConfig& checked, const std::string& run_dir,
                                       const std::string& resume, Display& display);

}  // namespace smartpipe
