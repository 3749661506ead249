#include "freeze_service/core/replan.h"

#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "freeze_service/core/reason.h"

namespace smartpipe {
namespace {

// Intervals in a row that must propose a move while the frontier stays.
constexpr int32_t kProposalsWanted = 2;

ReplanResult Stay(ReplanResult result, absl::string_view why) {
  result.step_s = result.old_step_s;
  result.reason = absl::StrCat("cuts stay: ", why);
  return result;
}

ReplanResult Failed(ReplanResult result, const absl::Status& why) {
  return Stay(std::move(result), absl::StrCat("the planner failed: ", why.message()));
}

void FillMove(const ReplanInput& input, std::vector<LayerIndex> cuts, double step_s,
              ReplanResult* result) {
  result->moves = LayerMoves(input.cuts, cuts, static_cast<int32_t>(input.planner.layers.size()),
                             input.planner.num_workers());
  for (const LayerMove& move : result->moves) {
    result->moved_bytes += input.planner.layers[move.layer.value()].state_bytes;
  }
  result->num_proposals = 0;
  result->cuts = std::move(cuts);
  result->step_s = step_s;
}

// Goes over to the cuts that somebody orders.
ReplanResult Obey(const ReplanInput& input, const PartitionResult& best, ReplanResult result) {
  const int32_t num_layers = static_cast<int32_t>(input.planner.layers.size());
  const std::vector<LayerIndex>& cuts = input.ordered->empty() ? best.cuts : *input.ordered;
  const std::string written = FormatCuts(cuts, num_layers, input.planner.frontier);
  if (cuts == input.cuts) {
    return Stay(std::move(result),
                absl::StrCat(written, input.ordered->empty() ? " are the best found"
                                                             : " are ordered and in force"));
  }
  const absl::StatusOr<double> step_s = SimulatedStepSeconds(input.planner, cuts);
  if (!step_s.ok()) {
    return Stay(std::move(result), absl::StrCat("the planner failed: ", step_s.status().message()));
  }
  FillMove(input, cuts, *step_s, &result);
  result.reason = absl::StrCat("moves ", DescribeMoves(result.moves), " as ordered: step ",
                               absl::StrFormat("%.1f", result.old_step_s * 1e3), " -> ",
                               Milliseconds(*step_s), "; cuts ", written);
  return result;
}

// Fills in a move to `proposed`, or leaves the cuts, depending on MoveOrStay and on how often a
// move was proposed.
ReplanResult Weigh(const ReplanInput& input, const PartitionResult& proposed, ReplanResult result) {
  const int32_t num_layers = static_cast<int32_t>(input.planner.layers.size());
  ReplanResult moved = result;
  FillMove(input, proposed.cuts, proposed.step_s, &moved);
  const absl::StatusOr<double> refill_s = RefillSeconds(input.planner, proposed.cuts);
  if (!refill_s.ok()) {
    return Stay(std::move(result),
                absl::StrCat("the planner failed: ", refill_s.status().message()));
  }
  const MoveVerdict verdict = MoveOrStay({.old_step_s = result.old_step_s,
                                          .new_step_s = proposed.step_s,
                                          .steps_left = input.steps_left,
                                          .drain_s = input.drain_s,
                                          .refill_s = *refill_s,
                                          .moved_bytes = moved.moved_bytes,
                                          .bytes_per_s = input.bytes_per_s,
                                          .min_gain = input.min_gain});
  const std::string cuts = FormatCuts(proposed.cuts, num_layers, input.planner.frontier);
  if (!verdict.move) {
    return Stay(std::move(result), absl::StrCat("with ", cuts, " ", verdict.reason));
  }
  result.num_proposals = input.num_proposals + 1;
  if (!input.frontier_changes && result.num_proposals < kProposalsWanted) {
    return Stay(std::move(result), absl::StrCat("with ", cuts, " ", verdict.reason,
                                                ", but a second interval must agree"));
  }
  moved.reason = absl::StrCat("moves ", DescribeMoves(moved.moves), ": ", verdict.reason);
  if (!input.frontier_changes) {
    absl::StrAppend(&moved.reason, ", ", result.num_proposals, " intervals in a row agree");
  }
  absl::StrAppend(&moved.reason, "; cuts ", cuts);
  return moved;
}

}  // namespace

ReplanResult Replan(const ReplanInput& input) {
  ReplanResult result;
  result.cuts = input.cuts;
  const absl::StatusOr<double> old_step_s = SimulatedStepSeconds(input.planner, input.cuts);
  if (!old_step_s.ok()) return Failed(std::move(result), old_step_s.status());
  const absl::StatusOr<double> even_step_s = EvenStepSeconds(input.planner);
  if (!even_step_s.ok()) return Failed(std::move(result), even_step_s.status());
  result.old_step_s = *old_step_s;
  result.even_step_s = *even_step_s;
  if (input.cuts.empty()) {  // one stage
    result.step_s = result.old_step_s;
    return result;
  }
  if (!input.ordered.has_value() && !input.may_move) {
    result = Stay(std::move(result), "rebalance.enabled is false");
    if (!input.frontier_changes) result.reason.clear();  // nobody expects a move then
    return result;
  }
  const absl::StatusOr<PartitionResult> proposed = Partition(input.planner);
  if (!proposed.ok()) return Failed(std::move(result), proposed.status());
  if (input.ordered.has_value()) return Obey(input, *proposed, std::move(result));
  if (proposed->cuts == input.cuts) {
    const std::string cuts = FormatCuts(
        input.cuts, static_cast<int32_t>(input.planner.layers.size()), input.planner.frontier);
    return Stay(std::move(result),
                absl::StrCat(cuts, " are the best found, step ", Milliseconds(*old_step_s)));
  }
  return Weigh(input, *proposed, std::move(result));
}

std::string DescribeMoves(const std::vector<LayerMove>& moves) {
  if (moves.empty()) return "layers between stages of the same worker";
  std::map<std::pair<StageIndex, StageIndex>, int32_t> counts;
  for (const LayerMove& move : moves) ++counts[{move.from_stage, move.to_stage}];
  return absl::StrJoin(counts, ", ", [](std::string* out, const auto& entry) {
    absl::StrAppend(out, Counted(entry.second, "layer"), " from stage ", entry.first.first.value(),
                    " to stage ", entry.first.second.value());
  });
}

}  // namespace smartpipe
