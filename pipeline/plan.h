// The plan: who runs which layers, from which step on, and what is frozen.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "services/base/ids.h"

namespace smartpipe {

/// Contiguous range of layers [first_layer, end_layer).
struct LayerRange {
  LayerIndex first_layer, end_layer;
  int32_t size() const { return end_layer - first_layer; }
  bool contains(LayerIndex layer) const { return first_layer <= layer && layer < end_layer; }
  friend bool operator==(const LayerRange&, const LayerRange&) = default;
};

/// What every worker does from `effective_step` on, until the next plan.
struct Plan {
  PlanEpoch plan_epoch;
  Step effective_step;
  LayerIndex frontier;           // layers [0, frontier) are frozen; 0 = nothing frozen
  std::vector<LayerIndex> cuts;  // first layers of stages 1..S-1, ascending, in (0, num_layers)
  std::vector<std::vector<WorkerId>> placement;  // [stage] -> its workers; today exactly one each
  std::string schedule;                          // name in pipeline/schedule.h's table
  std::vector<int32_t> credits;  // [edge s -> s+1] messages at each of its ends, >= 1; S-1 entries

  int32_t num_stages() const { return static_cast<int32_t>(placement.size()); }
  friend bool operator==(const Plan&, const Plan&) = default;
};

/// Layers of stage `stage`. Requires a valid plan and 0 <= stage < num_stages.
LayerRange StageLayers(const Plan& plan, int32_t num_layers, StageIndex stage);
/// Same from cuts alone: num stages = cuts.size() + 1.
LayerRange StageLayers(const std::vector<LayerIndex>& cuts, int32_t num_layers, StageIndex stage);
/// [stage] -> rank when stages are dealt out in turn: s mod num_ranks. One stage each is the
/// identity.
std::vector<int32_t> DealStages(int32_t num_stages, int32_t num_ranks);
/// All layers of the stages that DealStages gives to `rank`, ascending.
std::vector<LayerIndex> RankLayers(const std::vector<LayerIndex>& cuts, int32_t num_layers,
                                   int32_t num_ranks, Rank rank);
/// Stage that holds `layer`.
StageIndex StageOfLayer(const std::vector<LayerIndex>& cuts, LayerIndex layer);

/// Checks every field against the others; the message names the field, its value and its range
/// (INVALID_ARGUMENT).
absl::Status ValidatePlan(const Plan& plan, int32_t num_layers);

/// One layer that changes its owner between two plans with the same members.
struct LayerMove {
  LayerIndex layer;
  StageIndex from_stage, to_stage;
  friend bool operator==(const LayerMove&, const LayerMove&) = default;
};
/// The migration program: moves in ascending layer order. Every rank runs its own moves in this
/// order, so rendezvous sends cannot deadlock. Moves between two stages of one of the `num_ranks`
/// ranks (see DealStages) are none.
std::vector<LayerMove> LayerMoves(const std::vector<LayerIndex>& old_cuts,
                                  const std::vector<LayerIndex>& new_cuts, int32_t num_layers,
                                  int32_t num_ranks);

/// "[0,4) [4,7)"; with a frontier of 2 "[0,2|4) [4,7)", and a wholly frozen stage "[0,4|)". For
/// messages and logs.
std::string FormatCuts(const std::vector<LayerIndex>& cuts, int32_t num_layers,
                       LayerIndex frontier = LayerIndex(0));

}  // namespace smartpipe
