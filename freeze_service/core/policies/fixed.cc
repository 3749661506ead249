// fixed: the first k layers are frozen from step 0 on (the paper compares with k = 2).
#include "absl/strings/str_cat.h"
#include "freeze_service/core/policies/policies.h"
#include "freeze_service/core/reason.h"

namespace smartpipe {
namespace {

class FixedPolicy final : public Policy {
 public:
  explicit FixedPolicy(const PolicyOptions& options) : num_fixed_(options.fixed_layers) {}

  PolicyDecision Decide(const PolicyInput& input) const override {
    if (input.boundary.value() > 0) {
      return {input.frontier, "the policy fixed freezes only at the start"};
    }
    return {LayerIndex(num_fixed_),
            absl::StrCat("the policy fixed freezes the first ", Counted(num_fixed_, "layer"))};
  }

 private:
  const int32_t num_fixed_;
};

}  // namespace

std::unique_ptr<Policy> MakeFixedPolicy(const PolicyOptions& options) {
  return std::make_unique<FixedPolicy>(options);
}

}  // namespace smartpipe
