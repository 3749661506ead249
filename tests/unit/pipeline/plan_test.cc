#include "pipeline/plan.h"

#include <functional>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace smartpipe {
namespace {

using ::testing::HasSubstr;

std::vector<LayerIndex> Cuts(std::initializer_list<int> cuts) {
  std::vector<LayerIndex> out;
  for (int cut : cuts) out.emplace_back(cut);
  return out;
}

Plan ValidPlan() {
  Plan plan;
  plan.frontier = LayerIndex(2);
  plan.cuts = Cuts({4, 6});
  plan.placement = {{WorkerId("w0")}, {WorkerId("w1")}, {WorkerId("w2")}};
  plan.schedule = "1f1b";
  plan.credits = {3, 2};
  return plan;
}

TEST(Plan, ValidPlanPasses) { EXPECT_TRUE(ValidatePlan(ValidPlan(), 7).ok()); }

TEST(Plan, EachBrokenFieldIsNamedWithItsValue) {
  const std::pair<std::function<void(Plan&)>, const char*> kBroken[] = {
      {[](Plan& p) { p.plan_epoch = PlanEpoch(-1); }, "plan.plan_epoch is -1"},
      {[](Plan& p) { p.effective_step = Step(-5); }, "plan.effective_step is -5"},
      {[](Plan& p) { p.frontier = LayerIndex(7); }, "plan.frontier is 7, not in 0..6"},
      {[](Plan& p) { p.frontier = LayerIndex(-1); }, "plan.frontier is -1"},
      {[](Plan& p) { p.placement.clear(); }, "plan.placement is 0"},
      {[](Plan& p) { p.placement[1].clear(); }, "plan.placement[1] has 0 workers"},
      {[](Plan& p) { p.placement[1].push_back(WorkerId("w9")); },
       "plan.placement[1] has 2 workers"},
      {[](Plan& p) { p.placement[2] = {WorkerId("W 2")}; }, "plan.placement[2] is `W 2`"},
      {[](Plan& p) { p.cuts.pop_back(); }, "plan.cuts has 1 entries for 3 stages, not 2"},
      {[](Plan& p) {
         p.cuts = Cuts({4, 4});
       },
       "plan.cuts[1] is 4, not above the cut before it, 4"},
      {[](Plan& p) {
         p.cuts = Cuts({0, 4});
       },
       "plan.cuts[0] is 0, not in 1..6"},
      {[](Plan& p) {
         p.cuts = Cuts({4, 7});
       },
       "plan.cuts[1] is 7, not in 1..6"},
      {[](Plan& p) { p.credits = {3}; }, "plan.credits has 1 entries"},
      {[](Plan& p) {
         p.credits = {3, 0};
       },
       "plan.credits[1] is 0"},
      {[](Plan& p) { p.schedule = "2f2b"; }, "plan.schedule is `2f2b`, not one of gpipe, 1f1b"},
  };
  for (const auto& [breaks, want] : kBroken) {
    Plan plan = ValidPlan();
    breaks(plan);
    const absl::Status status = ValidatePlan(plan, 7);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << want;
    EXPECT_THAT(status.message(), HasSubstr(want));
  }
  EXPECT_THAT(ValidatePlan(ValidPlan(), 0).message(), HasSubstr("num_layers is 0"));
}

TEST(Plan, StagesAndLayersAgree) {
  const auto cuts = Cuts({1, 4, 6});
  for (int layer = 0; layer < 9; ++layer) {
    const StageIndex stage = StageOfLayer(cuts, LayerIndex(layer));
    EXPECT_TRUE(StageLayers(cuts, 9, stage).contains(LayerIndex(layer))) << layer;
  }
  EXPECT_EQ(StageLayers(Cuts({}), 9, StageIndex(0)).size(), 9);
}

TEST(Plan, MovesAreTheLayersThatChangeTheirStageInOrder) {
  const auto moves = LayerMoves(Cuts({3, 6}), Cuts({5, 6}), 8, 3);
  ASSERT_EQ(moves.size(), 2u);
  EXPECT_EQ(moves[0], (LayerMove{LayerIndex(3), StageIndex(1), StageIndex(0)}));
  EXPECT_EQ(moves[1], (LayerMove{LayerIndex(4), StageIndex(1), StageIndex(0)}));
  EXPECT_TRUE(LayerMoves(Cuts({3}), Cuts({3}), 8, 2).empty());
}

TEST(Plan, CutsPrintWithTheFrontier) {
  EXPECT_EQ(FormatCuts(Cuts({4}), 7), "[0,4) [4,7)");
  EXPECT_EQ(FormatCuts(Cuts({4}), 7, LayerIndex(2)), "[0,2|4) [4,7)");
  EXPECT_EQ(FormatCuts(Cuts({4}), 7, LayerIndex(4)), "[0,4|) [4,7)");
  EXPECT_EQ(FormatCuts(Cuts({4}), 7, LayerIndex(5)), "[0,4|) [4,5|7)");
  EXPECT_EQ(FormatCuts({}, 3), "[0,3)");
}

}  // namespace
}  // namespace smartpipe
