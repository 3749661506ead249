#include "pipeline/simulate.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "pipeline/play.h"
#include "services/base/status_macros.h"

namespace smartpipe {
namespace {

constexpr int kNumStepsMax = 10'000;

absl::Status CheckSeconds(absl::string_view name, size_t index, double seconds) {
  if (std::isfinite(seconds) && seconds >= 0) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(name, "[", index, "] has a time of ", seconds,
                                                 " s; times are finite and not negative"));
}

absl::Status CheckCosts(const ScheduleShape& shape, const std::vector<StageCost>& costs,
                        const std::vector<LinkCost>& links) {
  if (costs.size() != static_cast<size_t>(shape.num_stages)) {
    return absl::InvalidArgumentError(
        absl::StrCat("there are ", costs.size(), " stage costs for ", shape.num_stages, " stages"));
  }
  if (!links.empty() && links.size() + 1 != costs.size()) {
    return absl::InvalidArgumentError(absl::StrCat("there are ", links.size(), " link costs for ",
                                                   shape.num_stages - 1, " edges"));
  }
  for (size_t s = 0; s < costs.size(); ++s) {
    for (double seconds :
         {costs[s].forward_s, costs[s].input_grad_s, costs[s].weight_grad_s, costs[s].optimize_s}) {
      SP_RETURN_IF_ERROR(CheckSeconds("costs", s, seconds));
    }
  }
  for (size_t e = 0; e < links.size(); ++e) {
    for (double seconds : {links[e].latency_s, links[e].forward_s, links[e].backward_s}) {
      SP_RETURN_IF_ERROR(CheckSeconds("links", e, seconds));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckOptions(const ScheduleShape& shape, const SimulateOptions& options) {
  if (options.num_steps < 1 || options.num_steps > kNumStepsMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("num_steps is ", options.num_steps, ", not in 1..", kNumStepsMax));
  }
  if (options.credits.empty()) return absl::OkStatus();
  if (options.credits.size() + 1 != static_cast<size_t>(shape.num_stages)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "there are ", options.credits.size(), " credits for ", shape.num_stages - 1, " edges"));
  }
  for (size_t e = 0; e < options.credits.size(); ++e) {
    if (options.credits[e] >= 1) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("credits[", e, "] is ", options.credits[e], ", not at least 1"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<SimulateResult> Simulate(const ScheduleShape& shape,
                                        const std::vector<Program>& programs,
                                        const std::vector<StageCost>& costs,
                                        const std::vector<LinkCost>& links,
                                        const SimulateOptions& options) {
  SP_RETURN_IF_ERROR(ValidateShape(shape));
  SP_RETURN_IF_ERROR(CheckCosts(shape, costs, links));
  SP_RETURN_IF_ERROR(CheckOptions(shape, options));
  SP_ASSIGN_OR_RETURN(const Play play, Play::Make(shape, programs, options.send_mode,
                                                  options.credits, options.run_ahead));
  return play.Run(costs, links, options.num_steps, /*trace=*/true);
}

}  // namespace smartpipe
