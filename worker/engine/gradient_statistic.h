// The gradient statistic of one layer: norms of the interval's mean gradient and of its change.
#pragma once

#include <cstdint>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "worker/model/layer.h"

namespace smartpipe {

/// What is reported for one layer and interval. All norms are L2 over all parameters of the layer,
/// in double.
struct GradientNorms {
  bool has_previous = false;
  double mean = 0;              // || g(t) ||
  double previous_mean = 0;     // || g(t-1) ||
  double difference = 0;        // || g(t-1) - g(t) ||
  double microbatch_norm2 = 0;  // mean of || g_mb ||^2; 0 unless asked for
  double previous_microbatch_norm2 = 0;
  int64_t num_microbatches = 0;
  int64_t num_nonfinite_steps =
      0;  // 0, or at least 1 if any gradient of the interval was not finite
};

/// Running sum of step gradients over the interval, and the mean of the interval before.
///
/// The state is part of the layer and moves with it, so a plan change does not interrupt the
/// statistic. Cost: one add per step over the layer's parameters; the norms once per interval. Of
/// gradients on a device the numbers stay there until EndInterval or State asks for them.
/// Threads: one.
class GradientStatistic {
 public:
  /// `per_microbatch`: also keep the mean squared norm of micro-batch gradients. A micro-batch's
  /// gradients arrive weighted by 1 / num_microbatches, its share of the global batch; its norm is
  /// taken without that weight, as if the micro-batch were all there is.
  GradientStatistic(bool per_microbatch, int64_t num_microbatches)
      : per_microbatch_(per_microbatch), weight_(1.0 / static_cast<double>(num_microbatches)) {}

  bool per_microbatch() const { return per_microbatch_; }
  void AddMicrobatch(const std::vector<at::Tensor>& gradients);
  void AddStep(const std::vector<at::Tensor>& gradients);
  /// Norms of the interval that ends here; its mean becomes the previous one.
  GradientNorms EndInterval();

  std::vector<NamedTensor> State() const;
  absl::Status LoadState(const std::vector<NamedTensor>& state);

 private:
  const bool per_microbatch_;
  const double weight_;
  std::vector<at::Tensor> sum_, previous_mean_;  // one per parameter; empty = none yet
  int64_t num_steps_ = 0, num_microbatches_ = 0;
  double microbatch_norm2_sum_ = 0, previous_microbatch_norm2_ = 0;
  // The sum while it goes on on a device: a double there; undefined = the host's is up to date.
  at::Tensor microbatch_norm2_on_device_;

  double MicrobatchNorm2Sum() const;
};

}  // namespace smartpipe
