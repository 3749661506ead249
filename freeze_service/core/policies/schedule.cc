// schedule: a list of (step, frontier), each taking effect at exactly its step.
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "freeze_service/core/policies/policies.h"

namespace smartpipe {
namespace {

class SchedulePolicy final : public Policy {
 public:
  explicit SchedulePolicy(const PolicyOptions& options) : entries_(options.schedule) {}

  PolicyDecision Decide(const PolicyInput& input) const override {
    for (const auto& [step, frontier] : entries_) {
      if (step != input.step) continue;
      return {frontier, absl::StrCat("freeze.schedule sets the frontier to ", frontier.value(),
                                     " at step ", step.value())};
    }
    return {input.frontier,
            absl::StrCat("freeze.schedule has no entry for step ", input.step.value())};
  }

 private:
  const std::vector<std::pair<Step, LayerIndex>> entries_;
};

}  // namespace

std::unique_ptr<Policy> MakeSchedulePolicy(const PolicyOptions& options) {
  return std::make_unique<SchedulePolicy>(options);
}

}  // namespace smartpipe
