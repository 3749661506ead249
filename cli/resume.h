// `smartpipe train --resume`: whether and how a run directory goes on.
#pragma once

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "services/base/ids.h"
#include "services/config/run_config.h"

namespace smartpipe {

inline constexpr char kResumeNever[] = "never";
inline constexpr char kResumeAuto[] = "auto";

/// Whether `resume` is never, auto or a step.  Errors: INVALID_ARGUMENT.
absl::Status CheckResumeWord(const std::string& resume);

/// Whether the folder holds a run that was started.
bool HoldsRun(const std::string& run_dir);

/// Whether it holds one that has finished: nothing is left to do.
bool HoldsFinishedRun(const std::string& run_dir);

/// Step of the newest complete checkpoint; nothing if there is none.
std::optional<Step> NewestCheckpoint(const std::string& run_dir);

/// Whether the run may go on with `config`.
/// Errors: INVALID_ARGUMENT naming a key that must not change; FAILED_PRECONDITION when it holds no
/// run.
absl::Status CheckSameRun(const std::string& run_dir, const RunConfig& config);

/// Makes a run directory ready to go on with `config`, which replaces its config.toml.
/// Errors: as CheckSameRun; FAILED_PRECONDITION also when the run goes on in another process, or
/// has no complete checkpoint of the step that `resume` names.
absl::Status PrepareResume(const std::string& run_dir, const RunConfig& config,
                           const std::string& resume);

}  // namespace smartpipe
