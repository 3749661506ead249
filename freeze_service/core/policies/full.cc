// full: trains all layers to the end; the baseline of every comparison.
#include "freeze_service/core/policies/policies.h"

namespace smartpipe {
namespace {

class FullPolicy final : public Policy {
 public:
  PolicyDecision Decide(const PolicyInput& input) const override {
    return {input.frontier, "the policy full never freezes"};
  }
};

}  // namespace

std::unique_ptr<Policy> MakeFullPolicy(const PolicyOptions&) {
  return std::make_unique<FullPolicy>();
}

}  // namespace smartpipe
