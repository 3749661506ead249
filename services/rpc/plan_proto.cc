#include "services/rpc/plan_proto.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "services/base/limits.h"

namespace smartpipe {

v1::Plan ToProto(const Plan& plan) {
  v1::Plan proto;
  proto.set_plan_epoch(plan.plan_epoch.value());
  proto.set_effective_step(plan.effective_step.value());
  proto.set_frontier(plan.frontier.value());
  for (LayerIndex cut : plan.cuts) proto.add_cuts(cut.value());
  for (const std::vector<WorkerId>& workers : plan.placement) {
    v1::StagePlacement* stage = proto.add_placement();
    for (const WorkerId& worker : workers) stage->add_worker_ids(worker.value());
  }
  proto.set_schedule(plan.schedule);
  for (int32_t credits : plan.credits) proto.add_credits(credits);
  return proto;
}

absl::StatusOr<Plan> FromProto(const v1::Plan& proto) {
  if (proto.placement_size() < 1 || proto.placement_size() > limits::kStagesMax) {
    return absl::InvalidArgumentError(absl::StrCat("plan.placement has ", proto.placement_size(),
                                                   " stages; the range is 1 to ",
                                                   limits::kStagesMax));
  }
  if (proto.cuts_size() != proto.placement_size() - 1 ||
      proto.credits_size() != proto.cuts_size()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "plan has ", proto.placement_size(), " stages, ", proto.cuts_size(), " cuts and ",
        proto.credits_size(), " credits; there must be one cut and one credit less than stages"));
  }
  Plan plan{.plan_epoch = PlanEpoch(proto.plan_epoch()),
            .effective_step = Step(proto.effective_step()),
            .frontier = LayerIndex(proto.frontier()),
            .cuts = {},
            .placement = {},
            .schedule = proto.schedule(),
            .credits = {proto.credits().begin(), proto.credits().end()}};
  for (int32_t cut : proto.cuts()) plan.cuts.push_back(LayerIndex(cut));
  for (const v1::StagePlacement& stage : proto.placement()) {
    std::vector<WorkerId>& workers = plan.placement.emplace_back();
    for (const std::string& worker : stage.worker_ids()) workers.push_back(WorkerId(worker));
  }
  return plan;
}

v1::LayerCost ToProto(const LayerCost& cost) {
  v1::LayerCost proto;
  proto.set_forward_s(cost.forward_s);
  proto.set_input_grad_s(cost.input_grad_s);
  proto.set_weight_grad_s(cost.weight_grad_s);
  proto.set_optimize_s(cost.optimize_s);
  proto.set_output_bytes(cost.output_bytes);
  proto.set_param_bytes(cost.param_bytes);
  proto.set_state_bytes(cost.state_bytes);
  proto.set_activation_bytes(cost.activation_bytes);
  return proto;
}

LayerCost FromProto(const v1::LayerCost& proto) {
  return {.forward_s = proto.forward_s(),
          .input_grad_s = proto.input_grad_s(),
          .weight_grad_s = proto.weight_grad_s(),
          .optimize_s = proto.optimize_s(),
          .output_bytes = proto.output_bytes(),
          .param_bytes = proto.param_bytes(),
          .state_bytes = proto.state_bytes(),
          .activation_bytes = proto.activation_bytes()};
}

}  // namespace smartpipe
