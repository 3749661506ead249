// The one verdict of a boundary: frontier by the policy, cuts by the planner, and the reason.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "freeze_service/core/coordinator.h"
#include "freeze_service/core/evidence.h"

namespace smartpipe {

/// What the verdicts of one run have in common.
struct VerdictContext {
  const CoordinatorOptions& options;
  const Policy& policy;
  const RunLength& length;
};

/// What the planner is asked about a frontier.
PlannerInput MakePlannerInput(const CoordinatorOptions& options, const Evidence& evidence,
                              LayerIndex frontier);

/// Plan and verdict of boundary 0, from the workers' profiles in `evidence`. members: [rank].
/// Errors: INVALID_ARGUMENT when options.cuts do not fit the layers, or the planner fails.
absl::StatusOr<Verdict> FirstVerdict(const VerdictContext& context, const Evidence& evidence,
                                     const std::vector<WorkerId>& members);

/// Verdict of a later boundary. `plan`: the newest decided one, of the boundary before.
/// `num_proposals`: intervals in a row that proposed a move; updated.  Threads: pure.
Verdict NextVerdict(const VerdictContext& context, const Evidence& evidence, const Plan& plan,
                    IntervalIndex boundary, int32_t* num_proposals);

}  // namespace smartpipe
