#include "freeze_service/core/statistics.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "freeze_service/core/reason.h"

namespace smartpipe {
namespace {

// The divisor of "corrected" stays above this share of ||g(t-1)||^2: pure noise must not divide by
// zero.
constexpr double kSignalShareMin = 1e-12;

Eta NoEvidence(const LayerStatistics& statistics, const std::string& name, absl::string_view why) {
  return {std::numeric_limits<double>::quiet_NaN(),
          absl::StrCat(LayerLabel(statistics.layer, name), ": ", why)};
}

// Why the norm proves nothing; empty if it can be used.
std::string NormProblem(absl::string_view what, double norm, bool zero_is_fine) {
  if (!std::isfinite(norm)) return absl::StrCat(what, " is ", Rounded(norm));
  if (norm == 0 && !zero_is_fine) return absl::StrCat(what, " is zero");
  return "";
}

std::string Problem(const LayerStatistics& s, absl::string_view statistic) {
  if (s.frozen) return "frozen";
  if (s.num_nonfinite_steps > 0) {
    return absl::StrCat("the gradient was not finite in ", Counted(s.num_nonfinite_steps, "step"));
  }
  std::string problem = NormProblem("gradient norm", s.grad_norm_l2, false);
  if (!problem.empty()) return problem;
  if (!s.has_previous) return "no interval before to compare with";
  problem = NormProblem("gradient norm of the interval before", s.previous_grad_norm_l2, false);
  if (!problem.empty() || statistic == "norm") return problem;
  problem = NormProblem("norm of the gradient difference", s.grad_difference_norm_l2, true);
  if (!problem.empty() || statistic == "vector") return problem;
  if (s.num_microbatches < 2) return "statistic \"corrected\" needs at least 2 micro-batches";
  problem = NormProblem("mean squared micro-batch norm", s.microbatch_grad_norm2_mean, true);
  if (!problem.empty()) return problem;
  return NormProblem("mean squared micro-batch norm of the interval before",
                     s.previous_microbatch_grad_norm2_mean, true);
}

// Variance of the noise that is left in the mean of n micro-batch gradients.
double MeanNoise(double microbatch_norm2_mean, double norm2, int64_t n) {
  return std::max(0.0, (microbatch_norm2_mean - norm2) / static_cast<double>(n - 1));
}

double Corrected(const LayerStatistics& s) {
  const double norm2 = s.grad_norm_l2 * s.grad_norm_l2;
  const double previous2 = s.previous_grad_norm_l2 * s.previous_grad_norm_l2;
  const double noise = MeanNoise(s.microbatch_grad_norm2_mean, norm2, s.num_microbatches);
  const double previous_noise =
      MeanNoise(s.previous_microbatch_grad_norm2_mean, previous2, s.num_microbatches);
  const double change2 =
      std::max(0.0, s.grad_difference_norm_l2 * s.grad_difference_norm_l2 - noise - previous_noise);
  return std::sqrt(change2 / std::max(kSignalShareMin * previous2, previous2 - previous_noise));
}

}  // namespace

std::vector<std::string> StatisticNames() { return {"norm", "vector", "corrected"}; }

Eta ComputeEta(const LayerStatistics& statistics, const std::string& layer_name,
               absl::string_view statistic) {
  const LayerStatistics& s = statistics;
  const std::string problem = Problem(s, statistic);
  if (!problem.empty()) return NoEvidence(s, layer_name, problem);
  double eta = std::numeric_limits<double>::quiet_NaN();
  if (statistic == "norm") {
    eta = std::abs(s.previous_grad_norm_l2 - s.grad_norm_l2) / s.previous_grad_norm_l2;
  } else if (statistic == "vector") {
    eta = s.grad_difference_norm_l2 / s.previous_grad_norm_l2;
  } else if (statistic == "corrected") {
    eta = Corrected(s);
  }
  // Norms near the ends of the number range can still overflow or underflow here.
  if (!std::isfinite(eta)) return NoEvidence(s, layer_name, "eta is not a finite number");
  return {eta, ""};
}

}  // namespace smartpipe
