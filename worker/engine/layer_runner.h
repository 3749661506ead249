// Runs one layer: forward, backward, gradient accumulation, statistic, optimizer, times; and
// everything that moves with the layer.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "pipeline/partition.h"
#include "services/base/ids.h"
#include "services/config/run_config.h"
#include "worker/engine/gradient_statistic.h"
#include "worker/engine/work_times.h"
#include "worker/model/layer.h"
#include "worker/model/optimizer.h"

namespace smartpipe {

/// Of a LayerRunner's State what a weights file holds: parameters and buffers, in their order.
std::vector<NamedTensor> WeightsOf(std::vector<NamedTensor> state);

/// Proof that nothing is computed below the frontier; counted over the layer's life on this worker.
struct LayerCounters {
  int64_t num_graphs = 0;            // forwards that recorded an autograd graph
  int64_t num_gradient_tensors = 0;  // gradients computed, of parameters and of the input
  int64_t peak_saved = 0;            // most micro-batches whose activations were held at once
};

/// One layer with its own autograd graph per micro-batch.
///
/// Every layer edge is a cut in autograd, inside a stage and across one: the input is detached, the
/// output's gradient is handed in as a contiguous tensor. So the bytes cannot depend on where the
/// stages are cut. Threads: the compute thread only.
class LayerRunner {
 public:
  struct Options {
    OptimConfig optim;
    bool per_microbatch_norms = false;  // freeze.statistic = "corrected"
    int64_t num_microbatches = 1;
    at::Device device = at::kCPU;  // where the layer lives from now on
  };
  /// A trainable layer with fresh optimizer and statistic.
  static absl::StatusOr<std::unique_ptr<LayerRunner>> Create(LayerIndex index,
                                                             std::unique_ptr<Layer> layer,
                                                             const Options& options);

  LayerIndex index() const { return index_; }
  const Layer& layer() const { return *layer_; }
  bool frozen() const { return frozen_; }
  /// From now on: forward without gradient, BatchNorm in eval mode, no optimizer state, no
  /// statistic.
  void Freeze();
  /// From now on it trains again, as from Create, with the weights that it has.
  absl::Status Unfreeze();

  /// x: contiguous [n, ...]; the input gradient will be wanted in backward if `input_grad`. Returns
  /// a detached, contiguous output.
  at::Tensor Forward(MicrobatchIndex microbatch, const at::Tensor& x, bool input_grad);
  /// Forward in eval mode without any record, for evaluation.
  at::Tensor Evaluate(const at::Tensor& x);

  /// Fused backward of a micro-batch: adds to the step's gradients and returns the input's gradient
  /// (undefined unless Forward was told that it is wanted). `probe` also times the weight-gradient
  /// part alone, without any effect on values.
  at::Tensor Backward(MicrobatchIndex microbatch, const at::Tensor& output_grad, bool probe);
  /// The same in two halves: InputGrad first, then WeightGrad.
  at::Tensor InputGrad(MicrobatchIndex microbatch, const at::Tensor& output_grad);
  void WeightGrad(MicrobatchIndex microbatch);

  /// Statistic, then optimizer step on the accumulated gradients, which are dropped.
  void Optimize();

  /// Closes the interval: the norms (zeros when frozen) and the median times; a time < 0 = not
  /// measured.
  GradientNorms EndInterval() { return statistic_ ? statistic_->EndInterval() : GradientNorms{}; }
  LayerCost TakeCost();
  const LayerCounters& counters() const { return counters_; }
  /// Time of this thread spent on statistics since the last call, seconds.
  double TakeStatisticSeconds();

  /// Everything that moves: parameters, buffers, and if trainable optimizer and statistic state.
  std::vector<NamedTensor> State() const;
  /// Counterpart of State on a fresh runner; `frozen`: whether it is to be. A state from when the
  /// layer was frozen makes a trainable one start anew, as of Unfreeze.
  absl::Status LoadState(const std::vector<NamedTensor>& state, bool frozen);

 private:
  struct Saved {
    at::Tensor x, output;
    at::Tensor output_grad;  // between InputGrad and WeightGrad
  };
  LayerRunner(LayerIndex index, std::unique_ptr<Layer> layer, const Options& options)
      : index_(index), options_(options), layer_(std::move(layer)) {}
  void Accumulate(const std::vector<at::Tensor>& gradients);

  const LayerIndex index_;
  const Options options_;
  std::unique_ptr<Layer> layer_;
  std::vector<at::Tensor> parameters_;
  std::unique_ptr<LayerOptimizer> optimizer_;   // null when frozen
  std::optional<GradientStatistic> statistic_;  // nothing when frozen
  bool frozen_ = false;
  std::map<MicrobatchIndex, Saved> saved_;
  std::vector<at::Tensor> gradients_;  // of the step so far, one per parameter
  LayerCounters counters_;
  WorkTimes forward_, backward_, input_grad_, weight_grad_, accumulate_, optimize_;
  double statistic_s_ = 0;
  int64_t output_bytes_ = 0, activation_bytes_ = 0;
};

}  // namespace smartpipe
