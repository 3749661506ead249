// The compilers behind the table of pipeline/schedule.cc; one file each in this folder.
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "pipeline/instruction.h"
#include "pipeline/schedule.h"

namespace smartpipe {

/// Compute programs per rank for a valid shape that has one stage per rank, unless the schedule's
/// row says otherwise (schedule.cc has checked both).
/// Errors: INVALID_ARGUMENT when the schedule cannot serve this shape.  Threads: pure.
using CompileFunction = absl::StatusOr<std::vector<Program>> (*)(const ScheduleShape& shape);

absl::StatusOr<std::vector<Program>> CompileGpipe(const ScheduleShape& shape);
absl::StatusOr<std::vector<Program>> CompileOneFOneB(const ScheduleShape& shape);
absl::StatusOr<std::vector<Program>> CompileInterleaved(const ScheduleShape& shape);

}  // namespace smartpipe
