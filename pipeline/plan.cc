#include "pipeline/plan.h"

#include <algorithm>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "pipeline/schedule.h"
#include "services/base/limits.h"
#include "services/base/status_macros.h"

namespace smartpipe {
namespace {

absl::Status OutOfRange(absl::string_view field, int64_t value, int64_t least, int64_t most) {
  return absl::InvalidArgumentError(
      absl::StrCat(field, " is ", value, ", not in ", least, "..", most));
}

absl::Status CheckRange(absl::string_view field, int64_t value, int64_t least, int64_t most) {
  return least <= value && value <= most ? absl::OkStatus() : OutOfRange(field, value, least, most);
}

absl::Status CheckSize(absl::string_view field, size_t size, int64_t wanted) {
  if (static_cast<int64_t>(size) == wanted) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("plan.", field, " has ", size, " entries for ",
                                                 wanted + 1, " stages, not ", wanted));
}

absl::Status CheckCuts(const std::vector<LayerIndex>& cuts, int32_t num_layers) {
  for (size_t i = 0; i < cuts.size(); ++i) {
    const std::string field = absl::StrCat("plan.cuts[", i, "]");
    SP_RETURN_IF_ERROR(CheckRange(field, cuts[i].value(), 1, num_layers - 1));
    if (i > 0 && cuts[i] <= cuts[i - 1]) {
      return absl::InvalidArgumentError(absl::StrCat(
          field, " is ", cuts[i].value(), ", not above the cut before it, ", cuts[i - 1].value()));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckPlacement(const std::vector<std::vector<WorkerId>>& placement) {
  for (size_t stage = 0; stage < placement.size(); ++stage) {
    const std::string field = absl::StrCat("plan.placement[", stage, "]");
    if (placement[stage].size() != 1) {
      return absl::InvalidArgumentError(
          absl::StrCat(field, " has ", placement[stage].size(), " workers, not 1"));
    }
    if (!IsWorkerId(placement[stage][0].value())) {
      return absl::InvalidArgumentError(absl::StrCat(field, " is `", placement[stage][0].value(),
                                                     "`, not a worker id: 1 to ",
                                                     limits::kNameBytesMax, " of a-z, 0-9 and -"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

LayerRange StageLayers(const Plan& plan, int32_t num_layers, StageIndex stage) {
  return StageLayers(plan.cuts, num_layers, stage);
}

LayerRange StageLayers(const std::vector<LayerIndex>& cuts, int32_t num_layers, StageIndex stage) {
  const size_t s = stage.value();
  return {s == 0 ? LayerIndex(0) : cuts[s - 1],
          s == cuts.size() ? LayerIndex(num_layers) : cuts[s]};
}

std::vector<int32_t> DealStages(int32_t num_stages, int32_t num_ranks) {
  std::vector<int32_t> stage_to_rank(num_stages);
  for (int32_t s = 0; s < num_stages; ++s) stage_to_rank[s] = s % num_ranks;
  return stage_to_rank;
}

std::vector<LayerIndex> RankLayers(const std::vector<LayerIndex>& cuts, int32_t num_layers,
                                   int32_t num_ranks, Rank rank) {
  std::vector<LayerIndex> layers;
  for (int32_t s = rank.value(); s <= static_cast<int32_t>(cuts.size()); s += num_ranks) {
    const LayerRange range = StageLayers(cuts, num_layers, StageIndex(s));
    for (LayerIndex i = range.first_layer; i < range.end_layer; ++i) layers.push_back(i);
  }
  return layers;
}

StageIndex StageOfLayer(const std::vector<LayerIndex>& cuts, LayerIndex layer) {
  return StageIndex(
      static_cast<int32_t>(std::upper_bound(cuts.begin(), cuts.end(), layer) - cuts.begin()));
}

absl::Status ValidatePlan(const Plan& plan, int32_t num_layers) {
  SP_RETURN_IF_ERROR(CheckRange("num_layers", num_layers, 1, limits::kLayersMax));
  SP_RETURN_IF_ERROR(CheckRange("plan.plan_epoch", plan.plan_epoch.value(), 0, limits::kStepsMax));
  SP_RETURN_IF_ERROR(
      CheckRange("plan.effective_step", plan.effective_step.value(), 0, limits::kStepsMax));
  SP_RETURN_IF_ERROR(CheckRange("plan.frontier", plan.frontier.value(), 0, num_layers - 1));
  const int64_t num_stages = static_cast<int64_t>(plan.placement.size());
  SP_RETURN_IF_ERROR(CheckRange("number of stages in plan.placement", num_stages, 1,
                                std::min(limits::kStagesMax, num_layers)));
  SP_RETURN_IF_ERROR(CheckPlacement(plan.placement));
  SP_RETURN_IF_ERROR(CheckSize("cuts", plan.cuts.size(), num_stages - 1));
  SP_RETURN_IF_ERROR(CheckCuts(plan.cuts, num_layers));
  SP_RETURN_IF_ERROR(CheckSize("credits", plan.credits.size(), num_stages - 1));
  for (size_t edge = 0; edge < plan.credits.size(); ++edge) {
    SP_RETURN_IF_ERROR(CheckRange(absl::StrCat("plan.credits[", edge, "]"), plan.credits[edge], 1,
                                  limits::kMicrobatchesMax));
  }
  const std::vector<std::string> names = ScheduleNames();
  if (!absl::c_linear_search(names, plan.schedule)) {
    return absl::InvalidArgumentError(absl::StrCat("plan.schedule is `", plan.schedule,
                                                   "`, not one of ", absl::StrJoin(names, ", ")));
  }
  return absl::OkStatus();
}

std::vector<LayerMove> LayerMoves(const std::vector<LayerIndex>& old_cuts,
                                  const std::vector<LayerIndex>& new_cuts, int32_t num_layers,
                                  int32_t num_ranks) {
  std::vector<LayerMove> moves;
  for (LayerIndex layer(0); layer.value() < num_layers; ++layer) {
    const StageIndex from = StageOfLayer(old_cuts, layer), to = StageOfLayer(new_cuts, layer);
    if (from.value() % num_ranks != to.value() % num_ranks) moves.push_back({layer, from, to});
  }
  return moves;
}

std::string FormatCuts(const std::vector<LayerIndex>& cuts, int32_t num_layers,
                       LayerIndex frontier) {
  std::string text;
  for (int32_t stage = 0; stage <= static_cast<int32_t>(cuts.size()); ++stage) {
    const LayerRange range = StageLayers(cuts, num_layers, StageIndex(stage));
    absl::StrAppend(&text, stage == 0 ? "" : " ", "[", range.first_layer.value(), ",");
    if (frontier >= range.end_layer) {
      absl::StrAppend(&text, range.end_layer.value(), "|)");
    } else if (frontier > range.first_layer) {
      absl::StrAppend(&text, frontier.value(), "|", range.end_layer.value(), ")");
    } else {
      absl::StrAppend(&text, range.end_layer.value(), ")");
    }
  }
  return text;
}

}  // namespace smartpipe
