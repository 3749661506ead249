#include "services/rpc/plan_proto.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace smartpipe {
namespace {

Plan SomePlan() {
  return {.plan_epoch = PlanEpoch(3),
          .effective_step = Step(300),
          .frontier = LayerIndex(2),
          .cuts = {LayerIndex(3), LayerIndex(5)},
          .placement = {{WorkerId("w0")}, {WorkerId("w1"), WorkerId("w3")}, {WorkerId("w2")}},
          .schedule = "1f1b",
          .credits = {4, 1}};
}

TEST(PlanProto, ComesBackEqual) {
  absl::StatusOr<Plan> plan = FromProto(ToProto(SomePlan()));
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(*plan, SomePlan());
}

TEST(PlanProto, RefusesListsThatDoNotFit) {
  v1::Plan none = ToProto(SomePlan());
  none.clear_placement();
  EXPECT_EQ(FromProto(none).status().code(), absl::StatusCode::kInvalidArgument);
  v1::Plan cut = ToProto(SomePlan());
  cut.add_cuts(6);
  EXPECT_THAT(FromProto(cut).status().ToString(), testing::HasSubstr("3 stages, 3 cuts"));
  v1::Plan credit = ToProto(SomePlan());
  credit.clear_credits();
  EXPECT_THAT(FromProto(credit).status().ToString(), testing::HasSubstr("0 credits"));
  v1::Plan many = ToProto(SomePlan());
  for (int i = 0; i < 1000; ++i) many.add_placement();
  EXPECT_THAT(FromProto(many).status().ToString(), testing::HasSubstr("the range is 1 to"));
}

TEST(CostProto, ComesBackEqual) {
  const LayerCost cost{.forward_s = 1e-3,
                       .input_grad_s = -1,
                       .weight_grad_s = 2e-3,
                       .optimize_s = 4e-4,
                       .output_bytes = 1,
                       .param_bytes = 2,
                       .state_bytes = 3,
                       .activation_bytes = 4};
  const LayerCost back = FromProto(ToProto(cost));
  EXPECT_EQ(back.forward_s, cost.forward_s);
  EXPECT_EQ(back.input_grad_s, cost.input_grad_s);
  EXPECT_EQ(back.weight_grad_s, cost.weight_grad_s);
  EXPECT_EQ(back.optimize_s, cost.optimize_s);
  EXPECT_EQ(back.output_bytes, 1);
  EXPECT_EQ(back.param_bytes, 2);
  EXPECT_EQ(back.state_bytes, 3);
  EXPECT_EQ(back.activation_bytes, 4);
}

}  // namespace
}  // namespace smartpipe
