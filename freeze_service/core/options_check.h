// Whether a run's options make sense, before anything is known of its model.
#pragma once

#include "absl/status/status.h"
#include "freeze_service/core/coordinator.h"
#include "freeze_service/core/events.h"

namespace smartpipe {

/// Errors: INVALID_ARGUMENT naming the config key, its value and its range.  Threads: pure.
absl::Status CheckExecution(const ExecutionOptions& options);
/// Whether a model of so many layers can be frozen like that.
absl::Status CheckFitsModel(const PolicyOptions& policy, int32_t num_layers);
/// Whether the entries of a policy's schedule are boundaries.
absl::Status CheckScheduleSteps(const PolicyOptions& policy, const RunLength& length);
/// The same of all options but the policy's.
absl::Status CheckOptions(const CoordinatorOptions& options);

}  // namespace smartpipe
