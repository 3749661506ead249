// Cuts for the next boundary: the planner's proposal, the test whether moving is worth it, and the
// sentence about it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "pipeline/partition.h"
#include "pipeline/plan.h"

namespace smartpipe {

struct ReplanInput {
  PlannerInput planner;           // newest costs and the frontier of the boundary
  std::vector<LayerIndex> cuts;   // decided for the boundary before
  bool may_move = true;           // rebalance.enabled
  bool frontier_changes = false;  // at this boundary
  // Cuts to go over to, whatever that costs; empty = the best found; nothing = nobody orders any.
  std::optional<std::vector<LayerIndex>> ordered = std::nullopt;
  int32_t num_proposals = 0;  // intervals in a row, up to now, whose costs proposed a move
  int64_t steps_left = 0;     // from the boundary on
  double drain_s = 0, bytes_per_s = 0, min_gain = 0;
};

struct ReplanResult {
  std::vector<LayerIndex> cuts;
  std::vector<LayerMove> moves;
  int64_t moved_bytes = 0;
  // With the new frontier and the old cuts, the chosen cuts, all work evenly spread.
  double old_step_s = 0, step_s = 0, even_step_s = 0;
  int32_t num_proposals = 0;
  // "cuts stay: ..." or "moves 2 layers from stage 1 to stage 0: ..."; empty = nothing to say.
  std::string reason;
};

/// Moves layers when the frontier changes, or when two intervals in a row propose it (timings are
/// noisy), and only if MoveOrStay agrees. When the planner cannot plan, the cuts stay and the
/// reason says why.  Threads: pure.
ReplanResult Replan(const ReplanInput& input);

/// "2 layers from stage 1 to stage 0"; several pairs of stages are listed. No move: the cuts have
/// changed inside workers.
std::string DescribeMoves(const std::vector<LayerMove>& moves);

}  // namespace smartpipe
