// The contents of one report, checked against the plan in force in its interval.
#pragma once

#include <vector>

#include "absl/status/status.h"
#include "freeze_service/core/events.h"
#include "pipeline/plan.h"

namespace smartpipe {

/// `expected`: the layers that the worker ran, ascending; `frontier`: in force in the interval. NaN
/// and infinite norms pass.
/// Errors: INVALID_ARGUMENT naming layer, field and value.  Threads: pure.
absl::Status CheckReportContents(const IntervalReported& report,
                                 const std::vector<LayerIndex>& expected, LayerIndex frontier,
                                 const std::vector<LayerInfo>& layers);

/// Same bits in every field, NaN included.
bool SameReport(const IntervalReported& a, const IntervalReported& b);

}  // namespace smartpipe
