// The command line of the jobs on stored weights, for `smartpipe export` and `smartpipe eval`.
#pragma once

#include "absl/strings/string_view.h"

namespace smartpipe {

/// Whether the first word of stage_worker's command line is such a job: "export", "eval".
bool IsWeightsJob(absl::string_view word);

/// Runs the job and writes one line of JSON to --result-fd: what came out, or {"error": {"code",
/// "message"}} with the number of an absl::StatusCode.  Returns an exit code: 0 done, 1 an error,
/// other: wrong usage.
int WeightsMain(int argc, char** argv);

}  // namespace smartpipe
