#include "freeze_service/core/statistics.h"

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/core/core_harness.h"

namespace smartpipe {
namespace {

using ::testing::HasSubstr;
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();

LayerStatistics Norms(double previous, double now, double difference) {
  LayerStatistics s = testutil::MakeStatistics(LayerIndex(3), 0);
  s.previous_grad_norm_l2 = previous;
  s.grad_norm_l2 = now;
  s.grad_difference_norm_l2 = difference;
  return s;
}

TEST(ComputeEta, NormIsTheRelativeChangeOfTheNorm) {
  EXPECT_DOUBLE_EQ(ComputeEta(Norms(2, 1.5, 9), "block2", "norm").value, 0.25);
  EXPECT_DOUBLE_EQ(ComputeEta(Norms(2, 2.5, 9), "block2", "norm").value, 0.25);
  EXPECT_EQ(ComputeEta(Norms(2, 2, 9), "block2", "norm").value, 0);
}

TEST(ComputeEta, VectorIsTheLiteralDefinition) {
  EXPECT_DOUBLE_EQ(ComputeEta(Norms(2, 2, 3), "block2", "vector").value, 1.5);
  EXPECT_EQ(ComputeEta(Norms(2, 2, 0), "block2", "vector").value, 0);
}

TEST(ComputeEta, CorrectedWithoutNoiseIsTheVectorReading) {
  LayerStatistics s = Norms(2, 2, 3);
  s.num_microbatches = 10;
  s.microbatch_grad_norm2_mean = s.previous_microbatch_grad_norm2_mean = 4;  // = ||g||^2
  EXPECT_DOUBLE_EQ(ComputeEta(s, "block2", "corrected").value, 1.5);
}

TEST(ComputeEta, CorrectedTakesTheNoiseOfBothMeansOut) {
  LayerStatistics s = Norms(2, 2, 3);
  s.num_microbatches = 11;
  s.microbatch_grad_norm2_mean = 14;           // v(t) = (14 - 4) / 10 = 1
  s.previous_microbatch_grad_norm2_mean = 24;  // v(t-1) = 2
  EXPECT_DOUBLE_EQ(ComputeEta(s, "block2", "corrected").value, std::sqrt((9.0 - 1 - 2) / (4 - 2)));
}

TEST(ComputeEta, CorrectedStaysFiniteWhenAllIsNoise) {
  LayerStatistics s = Norms(1, 1, 1.4);
  s.num_microbatches = 2;
  s.microbatch_grad_norm2_mean = s.previous_microbatch_grad_norm2_mean = 1.5;
  EXPECT_TRUE(std::isfinite(ComputeEta(s, "block2", "corrected").value));
  s.previous_microbatch_grad_norm2_mean = 100;
  EXPECT_TRUE(std::isfinite(ComputeEta(s, "block2", "corrected").value));
}

// A constant gradient with noise far above it: the literal eta is near sqrt(2), the corrected one
// near its true 0.
TEST(ComputeEta, CorrectedRecoversAConstantSignalUnderNoise) {
  std::mt19937_64 engine(7);
  std::normal_distribution<double> normal;
  constexpr int kDimensions = 400, kMicrobatches = 200;
  const auto interval = [&](std::vector<double>* mean, double* norm2_mean) {
    mean->assign(kDimensions, 0);
    *norm2_mean = 0;
    for (int m = 0; m < kMicrobatches; ++m) {
      for (double& entry : *mean) {
        const double g = 0.2 + 4 * normal(engine);
        entry += g / kMicrobatches;
        *norm2_mean += g * g / kMicrobatches;
      }
    }
  };
  std::vector<double> before, now;
  LayerStatistics s = Norms(0, 0, 0);
  interval(&before, &s.previous_microbatch_grad_norm2_mean);
  interval(&now, &s.microbatch_grad_norm2_mean);
  double before2 = 0, now2 = 0, difference2 = 0;
  for (int i = 0; i < kDimensions; ++i) {
    before2 += before[i] * before[i];
    now2 += now[i] * now[i];
    difference2 += (now[i] - before[i]) * (now[i] - before[i]);
  }
  s.previous_grad_norm_l2 = std::sqrt(before2);
  s.grad_norm_l2 = std::sqrt(now2);
  s.grad_difference_norm_l2 = std::sqrt(difference2);
  s.num_microbatches = kMicrobatches;
  EXPECT_GT(ComputeEta(s, "block2", "vector").value, 0.9);
  EXPECT_LT(ComputeEta(s, "block2", "corrected").value, 0.6);
}

struct NoEvidenceCase {
  LayerStatistics statistics;
  std::string statistic;
  std::string why;
};

std::vector<NoEvidenceCase> NoEvidenceCases() {
  std::vector<NoEvidenceCase> cases = {
      {Norms(1, kNaN, 1), "norm", "gradient norm is NaN"},
      {Norms(1, kInf, 1), "norm", "gradient norm is infinity"},
      {Norms(1, 0, 1), "norm", "gradient norm is zero"},
      {Norms(kNaN, 1, 1), "norm", "gradient norm of the interval before is NaN"},
      {Norms(0, 1, 1), "norm", "gradient norm of the interval before is zero"},
      {Norms(1, 1, kNaN), "vector", "norm of the gradient difference is NaN"},
      {Norms(1e-320, 1e300, 1), "norm", "eta is not a finite number"},
  };
  LayerStatistics s = Norms(1, 1, 1);
  s.frozen = true;
  cases.push_back({s, "norm", "frozen"});
  s = Norms(1, 1, 1);
  s.has_previous = false;
  cases.push_back({s, "norm", "no interval before to compare with"});
  s = Norms(1, 1, 1);
  s.num_nonfinite_steps = 2;
  cases.push_back({s, "norm", "the gradient was not finite in 2 steps"});
  s = Norms(1, 1, 1);
  s.num_microbatches = 1;
  cases.push_back({s, "corrected", "needs at least 2 micro-batches"});
  s = Norms(1, 1, 1);
  s.microbatch_grad_norm2_mean = kInf;
  cases.push_back({s, "corrected", "mean squared micro-batch norm is infinity"});
  return cases;
}

TEST(ComputeEta, NoEvidenceIsNaNWithLayerAndReason) {
  for (const NoEvidenceCase& test : NoEvidenceCases()) {
    const Eta eta = ComputeEta(test.statistics, "block2", test.statistic);
    EXPECT_TRUE(std::isnan(eta.value)) << test.why;
    EXPECT_THAT(eta.no_evidence, HasSubstr("layer 3 \"block2\": "));
    EXPECT_THAT(eta.no_evidence, HasSubstr(test.why));
  }
}

TEST(ComputeEta, EvidenceHasNoExcuse) {
  for (const char* statistic : {"norm", "vector"}) {
    EXPECT_EQ(ComputeEta(Norms(1, 1.1, 0.1), "block2", statistic).no_evidence, "");
  }
  EXPECT_THAT(StatisticNames(), testing::ElementsAre("norm", "vector", "corrected"));
}

}  // namespace
}  // namespace smartpipe
