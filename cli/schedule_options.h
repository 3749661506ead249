// The options --schedule, --stages and --stages-per-worker, which `plan` and `simulate` share.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace smartpipe {

/// Names of all schedules: "gpipe|1f1b|interleaved_1f1b".
std::string ScheduleChoices();

/// INVALID_ARGUMENT with the option and the cure: for an unknown schedule, for stages that are not
/// in 1..stages_max (`why` ends that message) or cannot be dealt out evenly, and for more stages on
/// a worker than the schedule is made for, or fewer.
absl::Status CheckScheduleOptions(const std::string& schedule, int stages, int stages_per_worker,
                                  int stages_max, absl::string_view why = "");

}  // namespace smartpipe
