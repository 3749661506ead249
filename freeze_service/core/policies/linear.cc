// linear: one more layer at the first boundary of each epoch after the first, whatever the
// gradients say.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "freeze_service/core/policies/policies.h"
#include "freeze_service/core/reason.h"

namespace smartpipe {
namespace {

class LinearPolicy final : public Policy {
 public:
  // Stateless: as many layers as epochs have ended, so a boundary that skips an epoch catches up.
  PolicyDecision Decide(const PolicyInput& input) const override {
    const int64_t epochs_done = input.step.value() / input.steps_per_epoch;
    const int64_t frontier = std::min<int64_t>(epochs_done, input.num_layers);
    return {LayerIndex(static_cast<int32_t>(frontier)),
            absl::StrCat("one layer per epoch done, and ", Counted(epochs_done, "epoch"),
                         epochs_done == 1 ? " is" : " are", " done at step ", input.step.value())};
  }
};

}  // namespace

std::unique_ptr<Policy> MakeLinearPolicy(const PolicyOptions&) {
  return std::make_unique<LinearPolicy>();
}

}  // namespace smartpipe
