// Orders of operators: whether one can be accepted and where it takes effect, and what the verdict
// of a boundary has to carry out.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "freeze_service/core/coordinator_state.h"
#include "freeze_service/core/events.h"
#include "freeze_service/core/policy.h"

namespace smartpipe {

/// What an order is checked against: a run that has started and not ended.
struct OrderContext {
  const ExecutionOptions& execution;
  const PolicyOptions& policy;
  RunLength length;
  IntervalIndex next_boundary;   // the first that this generation has no verdict for
  IntervalIndex next_undecided;  // the first that no generation has had one for
  LayerIndex frontier;           // decided for the boundary before next_undecided
  int32_t num_layers = 0;
  std::vector<WorkerId> workers;  // of the newest plan
};

/// The order with the boundary that carries it out, after CheckRequestId.
/// Errors, each with an ErrorReason: INVALID_ARGUMENT (NO_BOUNDARY_STEP, BAD_FRONTIER, BAD_CUTS,
/// BAD_POLICY), NOT_FOUND (UNKNOWN_WORKER), RESOURCE_EXHAUSTED (TOO_MANY_ORDERS),
/// FAILED_PRECONDITION (TOO_LATE, NO_BOUNDARY_LEFT, CONFLICT, NOTHING_TO_DO, LAST_WORKER). Threads:
/// pure.
absl::StatusOr<OrderRecord> CheckOrder(const OrderGiven& given, const OrderContext& context,
                                       const Orders& orders);

/// Errors: ALREADY_EXISTS (REQUEST_ID_IN_USE) when another order than this one has its id.
absl::Status CheckRequestId(const OrderGiven& given, const Orders& orders);

/// The accepted order with this id; null = none is remembered.
const OrderRecord* FindOrder(const Orders& orders, absl::string_view request_id);

/// Adds a record, and does what takes effect with its acceptance: pause, resume, and the end of a
/// pause that would hold a stop back.
void Accept(OrderRecord record, Orders* orders);

/// What the verdict of one boundary carries out.
struct BoundaryOrders {
  std::optional<LayerIndex> freeze, unfreeze;
  std::string frontier_why;  // of these
  std::optional<PolicyOptions> policy;
  std::optional<std::vector<LayerIndex>> cuts;  // as of ReplanInput::ordered
  bool checkpoint = false, stop = false;
  std::string sentence;  // about all but freeze and unfreeze; empty = nothing to say
};

/// Takes the open orders of `boundary` as carried out. `is_decided`: an earlier generation has had
/// its verdict, which keeps its frontier and policy. `policy`: the one in force.
BoundaryOrders CarryOut(IntervalIndex boundary, bool is_decided, const PolicyOptions& policy,
                        Orders* orders);

/// The policy with what the order changes.
PolicyOptions Changed(PolicyOptions policy, const ChangePolicy& change);

/// A generation starts with the verdict of `first` given anew: what was to be carried out there or
/// before is at the next boundary, or is dropped if there is none. Rebalances and checkpoints of
/// later boundaries, whose verdicts nobody has reached, are carried out again.
void Postpone(IntervalIndex first, const RunLength& length, Orders* orders);

/// How the run is carried out once so many workers have been drained.
ExecutionOptions AfterDrains(ExecutionOptions execution, size_t num_drained);

/// "ordered by alice: the first layers look done".
std::string WhoAndWhy(const OrderGiven& given);
/// The same of a stop: who stops his own run need not be named.
std::string WhyStopped(const OrderGiven& given);
/// "FreezeLayers": the order's name as in the rpc.
absl::string_view OrderName(const Order& order);

}  // namespace smartpipe
