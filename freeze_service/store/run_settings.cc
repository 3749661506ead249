#include "freeze_service/store/run_settings.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "services/base/status_macros.h"

namespace smartpipe {
namespace {

// "train.epochs = 3" for each key.
std::vector<std::string> KeyLines(absl::string_view toml) {
  std::vector<std::string> lines;
  absl::string_view table;
  for (absl::string_view line : absl::StrSplit(toml, '\n', absl::SkipEmpty())) {
    if (absl::StartsWith(line, "[")) {
      table = line.substr(1, line.find(']') - 1);
    } else {
      lines.push_back(absl::StrCat(table, table.empty() ? "" : ".", line));
    }
  }
  return lines;
}

// How a run is carried out, and where: it changes no result.
bool MayDifferOnResume(absl::string_view line) {
  for (const absl::string_view prefix :
       {"pipeline.", "rebalance.", "worker.", "service.address ", "parameter_service.address ",
        "tls.", "log.", "--cores "}) {
    if (absl::StartsWith(line, prefix)) return true;
  }
  return false;
}

}  // namespace

absl::StatusOr<CoordinatorOptions> MakeCoordinatorOptions(const RunSettings& settings) {
  SP_ASSIGN_OR_RETURN(const RunConfig config,
                      ParseRunConfig(settings.config_toml, "the run's config"));
  CoordinatorOptions options;
  options.num_stages = static_cast<int32_t>(config.pipeline.stages);
  options.stages_per_worker = static_cast<int32_t>(config.pipeline.stages_per_worker);
  options.num_microbatches = static_cast<int32_t>(config.train.microbatches);
  options.schedule = config.pipeline.schedule;
  options.run_ahead = config.pipeline.run_ahead;
  options.num_cores = settings.num_cores;
  for (int64_t cut : config.pipeline.cuts)
    options.cuts.push_back(LayerIndex(static_cast<int32_t>(cut)));
  options.statistic = config.freeze.statistic;
  options.policy = {.policy = config.freeze.policy,
                    .tau = config.freeze.tau,
                    .lambda_max = config.freeze.lambda_max,
                    .warmup_intervals = static_cast<int32_t>(config.freeze.warmup_intervals),
                    .hits = static_cast<int32_t>(config.freeze.hits),
                    .min_trainable = static_cast<int32_t>(config.freeze.min_trainable),
                    .fixed_layers = static_cast<int32_t>(config.freeze.fixed_layers),
                    .schedule = {}};
  for (const auto& [step, frontier] : config.freeze.schedule) {
    options.policy.schedule.emplace_back(Step(step), LayerIndex(static_cast<int32_t>(frontier)));
  }
  options.recovery = {.enabled = config.recovery.enabled,
                      .max_restarts = static_cast<int32_t>(config.recovery.max_restarts)};
  options.rebalance_enabled = config.rebalance.enabled;
  options.rebalance_min_gain = config.rebalance.min_gain;
  return options;
}

std::string DifferenceOf(const RunSettings& recorded, const RunSettings& now, Resuming resuming) {
  const auto lines_of = [resuming](const RunSettings& settings) {
    std::vector<std::string> lines = KeyLines(settings.config_toml);
    lines.push_back(absl::StrCat("--cores ", settings.num_cores));
    if (resuming == Resuming::kYes) std::erase_if(lines, MayDifferOnResume);
    return lines;
  };
  const std::vector<std::string> before = lines_of(recorded), after = lines_of(now);
  const auto [a, b] = std::mismatch(before.begin(), before.end(), after.begin(), after.end());
  if (a == before.end() && b == after.end()) return "";
  return absl::StrCat(a == before.end() ? "nothing" : *a, " was recorded, now it is ",
                      b == after.end() ? "nothing" : *b);
}

}  // namespace smartpipe
