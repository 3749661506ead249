// The one verdict of a boundary: frontier by the policy, cuts by the planner, and the reason.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "freeze_service/core/coordinator.h"
#include "freeze_service/core/evidence.h"
#include "freeze_service/core/orders.h"

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

/// The verdict `in_force` at `step` with a plan for other members: its frontier, new cuts.
/// `newest`: the newest plan that was decided; when nothing may move and the stages are as many,
/// the cuts stay. Errors: as FirstVerdict.
absl::StatusOr<Verdict> VerdictAnew(const VerdictContext& context, const Evidence& evidence,
                                    const Verdict& in_force, const Plan& newest,
                                    const std::vector<WorkerId>& members, Step step, Plan* plan);

/// Verdict of a later boundary. `plan`: the newest decided one, of the boundary before. `decided`:
/// what an earlier generation decided for this boundary, which is kept; the verdict has no
/// statistics then. `orders`: what is to be carried out here. `keep_trainable`: as in Orders.
/// `num_proposals`: intervals in a row that proposed a move; updated.  Threads: pure.
Verdict NextVerdict(const VerdictContext& context, const Evidence& evidence, const Plan& plan,
                    IntervalIndex boundary, const std::optional<PolicyDecision>& decided,
                    const BoundaryOrders& orders, std::optional<LayerIndex> keep_trainable,
                    int32_t* num_proposals);

}  // namespace smartpipe
