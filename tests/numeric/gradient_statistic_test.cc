// The gradient statistic on gradients made by hand.
#include "worker/engine/gradient_statistic.h"

#include <cmath>
#include <limits>
#include <vector>

#include "ATen/ops/full.h"
#include "gtest/gtest.h"

namespace smartpipe {
namespace {

constexpr int64_t kNumMicrobatches = 4;

/// Two parameters, 9 + 16 values of `value`: norm 5 * |value|.
std::vector<at::Tensor> Gradients(double value) {
  return {at::full({3, 3}, value, at::kFloat), at::full({16}, value, at::kFloat)};
}

/// One step whose micro-batches have the given gradients, each weighted by its share.
void AddStep(GradientStatistic& statistic, const std::vector<double>& microbatches) {
  double sum = 0;
  for (double value : microbatches) {
    statistic.AddMicrobatch(Gradients(value / kNumMicrobatches));
    sum += value / kNumMicrobatches;
  }
  statistic.AddStep(Gradients(sum));
}

TEST(GradientStatisticTest, NormsAreOfTheIntervalsMean) {
  GradientStatistic statistic(false, kNumMicrobatches);
  AddStep(statistic, {1, 1, 1, 1});
  AddStep(statistic, {3, 3, 3, 3});
  GradientNorms norms = statistic.EndInterval();
  EXPECT_FALSE(norms.has_previous);
  EXPECT_DOUBLE_EQ(norms.mean, 10);  // mean gradient 2
  EXPECT_EQ(norms.microbatch_norm2, 0) << "not asked for";
  AddStep(statistic, {-1, -1, -1, -1});
  norms = statistic.EndInterval();
  EXPECT_TRUE(norms.has_previous);
  EXPECT_DOUBLE_EQ(norms.previous_mean, 10);
  EXPECT_DOUBLE_EQ(norms.mean, 5);
  EXPECT_DOUBLE_EQ(norms.difference, 15);
}

TEST(GradientStatisticTest, EqualMicrobatchesHaveTheNormOfTheirMean) {
  GradientStatistic statistic(true, kNumMicrobatches);
  AddStep(statistic, {2, 2, 2, 2});
  const GradientNorms norms = statistic.EndInterval();
  EXPECT_DOUBLE_EQ(norms.microbatch_norm2, norms.mean * norms.mean);
  EXPECT_EQ(norms.num_microbatches, kNumMicrobatches);
}

TEST(GradientStatisticTest, NoisyMicrobatchesHaveALargerNormThanTheirMean) {
  GradientStatistic statistic(true, kNumMicrobatches);
  AddStep(statistic, {4, -4, 4, 0});  // mean 1, mean square 12
  const GradientNorms norms = statistic.EndInterval();
  EXPECT_DOUBLE_EQ(norms.mean, 5);
  EXPECT_DOUBLE_EQ(norms.microbatch_norm2, 25 * 12);
}

TEST(GradientStatisticTest, ANonFiniteGradientIsReported) {
  GradientStatistic statistic(false, kNumMicrobatches);
  AddStep(statistic, {1, 1, 1, std::numeric_limits<double>::quiet_NaN()});
  AddStep(statistic, {1, 1, 1, 1});
  const GradientNorms norms = statistic.EndInterval();
  EXPECT_TRUE(std::isnan(norms.mean));
  EXPECT_GE(norms.num_nonfinite_steps, 1);
}

TEST(GradientStatisticTest, StateMovesWithoutATrace) {
  GradientStatistic stays(true, kNumMicrobatches), sender(true, kNumMicrobatches);
  for (GradientStatistic* statistic : {&stays, &sender}) {
    AddStep(*statistic, {1, 2, 3, 4});
    statistic->EndInterval();
    AddStep(*statistic, {2, 2, 3, 3});
  }
  GradientStatistic receiver(true, kNumMicrobatches);
  ASSERT_TRUE(receiver.LoadState(sender.State()).ok());
  const GradientNorms expected = stays.EndInterval(), actual = receiver.EndInterval();
  EXPECT_EQ(actual.mean, expected.mean);
  EXPECT_EQ(actual.difference, expected.difference);
  EXPECT_EQ(actual.microbatch_norm2, expected.microbatch_norm2);
  EXPECT_EQ(actual.previous_microbatch_norm2, expected.previous_microbatch_norm2);
  EXPECT_FALSE(receiver.LoadState({}).ok());
}

}  // namespace
}  // namespace smartpipe
