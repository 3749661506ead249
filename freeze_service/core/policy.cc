#include "freeze_service/core/policy.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "freeze_service/core/policies/policies.h"
#include "services/base/status_macros.h"

namespace smartpipe {
namespace {

struct PolicyEntry {
  absl::string_view name;
  std::unique_ptr<Policy> (*make)(const PolicyOptions& options);
};
constexpr PolicyEntry kPolicies[] = {
    {"full", MakeFullPolicy},         {"fixed", MakeFixedPolicy},
    {"linear", MakeLinearPolicy},     {"smartpipe", MakeSmartPipePolicy},
    {"schedule", MakeSchedulePolicy},
};

absl::Status OutOfRange(absl::string_view key, double value, absl::string_view range) {
  return absl::InvalidArgumentError(absl::StrCat(key, " is ", value, ", it must be ", range));
}

absl::Status CheckSchedule(const std::vector<std::pair<Step, LayerIndex>>& schedule) {
  for (size_t i = 0; i < schedule.size(); ++i) {
    const auto& [step, frontier] = schedule[i];
    if (step.value() < 0 || frontier.value() < 0) {
      return absl::InvalidArgumentError(absl::StrCat("freeze.schedule entry ", i, " is negative: [",
                                                     step.value(), ", ", frontier.value(), "]"));
    }
    if (i > 0 && (step <= schedule[i - 1].first || frontier < schedule[i - 1].second)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "freeze.schedule entry ", i,
          " is not after the entry before it: steps must rise and frontiers never fall"));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckOptions(const PolicyOptions& options) {
  if (!std::isfinite(options.tau) || options.tau <= 0) {
    return OutOfRange("freeze.tau", options.tau, "above 0");
  }
  if (!(options.lambda_max > 0 && options.lambda_max <= 1)) {
    return OutOfRange("freeze.lambda_max", options.lambda_max, "above 0 and at most 1");
  }
  if (options.warmup_intervals < 0) {
    return OutOfRange("freeze.warmup_intervals", options.warmup_intervals, "at least 0");
  }
  if (options.hits < 1 || options.hits > kEtaHistory) {
    return OutOfRange("freeze.hits", options.hits, absl::StrCat("in 1..", kEtaHistory));
  }
  if (options.min_trainable < 1) {
    return OutOfRange("freeze.min_trainable", options.min_trainable, "at least 1");
  }
  if (options.fixed_layers < 0) {
    return OutOfRange("freeze.fixed_layers", options.fixed_layers, "at least 0");
  }
  return CheckSchedule(options.schedule);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Policy>> MakePolicy(const PolicyOptions& options) {
  SP_RETURN_IF_ERROR(CheckOptions(options));
  for (const PolicyEntry& entry : kPolicies) {
    if (entry.name == options.policy) return entry.make(options);
  }
  return absl::InvalidArgumentError(
      absl::StrCat("freeze.policy is \"", options.policy,
                   "\", there are: ", absl::StrJoin(PolicyNames(), ", ")));
}

std::vector<std::string> PolicyNames() {
  std::vector<std::string> names;
  for (const PolicyEntry& entry : kPolicies) names.emplace_back(entry.name);
  return names;
}

}  // namespace smartpipe
