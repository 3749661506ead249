#include <cmath>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "pipeline/partition.h"

namespace smartpipe {
namespace {

using ::testing::HasSubstr;

TEST(SpeedupLimit, IsTheShareOfTheWorkThatIsLeft) {
  EXPECT_DOUBLE_EQ(SpeedupLimit(0, 2), 1);
  EXPECT_DOUBLE_EQ(SpeedupLimit(0.5, 2), 1.5);  // 3 / (3 - 2 phi)
  EXPECT_DOUBLE_EQ(SpeedupLimit(1, 2), 3);
  const std::vector<LayerCost> layers(
      4, LayerCost{.forward_s = 1, .input_grad_s = 1, .weight_grad_s = 1});
  EXPECT_DOUBLE_EQ(SpeedupLimit(layers, LayerIndex(0)), 1);
  // 4 f + 3 d + 4 w against 4 f + 1 d + 2 w: layer 2 is the first trainable one and needs no input
  // gradient.
  EXPECT_DOUBLE_EQ(SpeedupLimit(layers, LayerIndex(2)), 11.0 / 7);
  EXPECT_DOUBLE_EQ(SpeedupLimit({}, LayerIndex(0)), 1);
}

TEST(MoveOrStay, MovesWhenItPays) {
  const MoveVerdict verdict = MoveOrStay({.old_step_s = 0.0412,
                                          .new_step_s = 0.033,
                                          .steps_left = 1200,
                                          .drain_s = 0.03,
                                          .moved_bytes = 2'000'000,
                                          .bytes_per_s = 1e8});
  EXPECT_TRUE(verdict.move);
  EXPECT_EQ(verdict.reason,
            "step 41.2 -> 33.0 ms (-19.9%), saves 9.84 s over 1200 steps, costs 0.05 s");
}

TEST(MoveOrStay, StaysWhenItDoesNot) {
  MoveTest test{.old_step_s = 0.1, .new_step_s = 0.099, .steps_left = 1000};
  EXPECT_FALSE(MoveOrStay(test).move);
  EXPECT_THAT(MoveOrStay(test).reason, HasSubstr("less than the 3.0% that are worth a move"));
  test.min_gain = 0.01;
  test.drain_s = 2;
  EXPECT_FALSE(MoveOrStay(test).move);
  EXPECT_THAT(MoveOrStay(test).reason,
              HasSubstr("would save only 1.00 s over 1000 steps, costs 2.00 s"));
  test.drain_s = 0.5;
  EXPECT_TRUE(MoveOrStay(test).move);
  test.refill_s = 0.6;
  EXPECT_FALSE(MoveOrStay(test).move);
  test.refill_s = 0;
  test.steps_left = 0;
  EXPECT_FALSE(MoveOrStay(test).move);
  test = {.old_step_s = 0.1, .new_step_s = 0.1, .steps_left = 1000};
  EXPECT_THAT(MoveOrStay(test).reason, HasSubstr("nothing to gain"));
  test.new_step_s = NAN;
  EXPECT_FALSE(MoveOrStay(test).move);
}

}  // namespace
}  // namespace smartpipe
