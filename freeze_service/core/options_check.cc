#include "freeze_service/core/options_check.h"

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "freeze_service/core/statistics.h"
#include "pipeline/schedule.h"
#include "services/base/limits.h"
#include "services/base/status_macros.h"

namespace smartpipe {
namespace {

absl::Status CheckName(absl::string_view key, const std::string& name,
                       const std::vector<std::string>& names) {
  if (std::find(names.begin(), names.end(), name) != names.end()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(key, " is \"", name, "\", there are: ", absl::StrJoin(names, ", ")));
}

absl::Status CheckRange(absl::string_view key, int64_t value, int64_t least, int64_t most) {
  if (least <= value && value <= most) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(key, " is ", value, ", not in ", least, "..", most));
}

}  // namespace

absl::Status CheckExecution(const ExecutionOptions& options) {
  SP_RETURN_IF_ERROR(CheckRange("pipeline.stages", options.num_stages, 1, limits::kStagesMax));
  SP_RETURN_IF_ERROR(
      CheckRange("pipeline.stages_per_worker", options.stages_per_worker, 1, options.num_stages));
  if (options.num_stages % options.stages_per_worker != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("pipeline.stages is ", options.num_stages,
                     ", no multiple of pipeline.stages_per_worker = ", options.stages_per_worker));
  }
  SP_RETURN_IF_ERROR(CheckName("pipeline.schedule", options.schedule, ScheduleNames()));
  if (!(options.rebalance_min_gain >= 0 && options.rebalance_min_gain < 1)) {
    return absl::InvalidArgumentError(absl::StrCat("rebalance.min_gain is ",
                                                   options.rebalance_min_gain,
                                                   ", it must be at least 0 and below 1"));
  }
  const std::vector<LayerIndex>& cuts = options.cuts;
  if (!cuts.empty() && static_cast<int32_t>(cuts.size()) != options.num_stages - 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("pipeline.cuts has ", cuts.size(), cuts.size() == 1 ? " entry" : " entries",
                     ", ", options.num_stages, " stages need ", options.num_stages - 1));
  }
  for (size_t i = 0; i < cuts.size(); ++i) {
    const int32_t least = i == 0 ? 1 : cuts[i - 1].value() + 1;
    SP_RETURN_IF_ERROR(CheckRange(absl::StrCat("pipeline.cuts[", i, "]"), cuts[i].value(), least,
                                  limits::kLayersMax - 1));
  }
  return absl::OkStatus();
}

absl::Status CheckFitsModel(const PolicyOptions& policy, int32_t num_layers) {
  SP_RETURN_IF_ERROR(CheckRange("freeze.min_trainable", policy.min_trainable, 1, num_layers));
  const int32_t most = num_layers - policy.min_trainable;
  if (policy.policy == "fixed")
    return CheckRange("freeze.fixed_layers", policy.fixed_layers, 0, most);
  if (policy.policy != "schedule") return absl::OkStatus();
  if (policy.schedule.empty())
    return absl::InvalidArgumentError("policy schedule needs freeze.schedule");
  return CheckRange("the last frontier of freeze.schedule", policy.schedule.back().second.value(),
                    0, most);
}

absl::Status CheckScheduleSteps(const PolicyOptions& policy, const RunLength& length) {
  if (policy.policy != "schedule") return absl::OkStatus();
  for (const auto& [step, frontier] : policy.schedule) {
    if (step.value() % length.interval_steps == 0) continue;
    return absl::InvalidArgumentError(absl::StrCat("freeze.schedule has step ", step.value(),
                                                   ", no multiple of the interval of ",
                                                   length.interval_steps, " steps"));
  }
  return absl::OkStatus();
}

absl::Status CheckOptions(const CoordinatorOptions& options) {
  SP_RETURN_IF_ERROR(CheckExecution(options));
  SP_RETURN_IF_ERROR(
      CheckRange("train.microbatches", options.num_microbatches, 1, limits::kMicrobatchesMax));
  return CheckName("freeze.statistic", options.statistic, StatisticNames());
}

}  // namespace smartpipe
