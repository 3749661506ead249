#include "worker/engine/layer_runner.h"

#include <algorithm>
#include <utility>

#include "ATen/core/grad_mode.h"
#include "absl/strings/str_cat.h"
#include "services/base/status_macros.h"
#include "torch/csrc/autograd/autograd.h"
#include "worker/engine/compute_device.h"
#include "worker/engine/stopwatch.h"

namespace smartpipe {
namespace {

constexpr char kOptimizerPrefix[] = "optimizer/";
constexpr char kStatisticPrefix[] = "statistic/";

int64_t Bytes(const std::vector<NamedTensor>& tensors) {
  int64_t bytes = 0;
  for (const NamedTensor& named : tensors) bytes += static_cast<int64_t>(named.tensor.nbytes());
  return bytes;
}

std::vector<NamedTensor> TakePrefixed(const std::vector<NamedTensor>& state,
                                      const std::string& prefix, at::Device device) {
  std::vector<NamedTensor> taken;
  for (const NamedTensor& named : state) {
    if (named.name.starts_with(prefix))
      taken.push_back({named.name.substr(prefix.size()), StateToDevice(named.tensor, device)});
  }
  return taken;
}

std::vector<at::Tensor> Gradients(const at::Tensor& output, const std::vector<at::Tensor>& inputs,
                                  const at::Tensor& output_grad, bool retain_graph) {
  return torch::autograd::grad({output}, inputs, {output_grad}, retain_graph);
}

}  // namespace

std::vector<NamedTensor> WeightsOf(std::vector<NamedTensor> state) {
  std::erase_if(state, [](const NamedTensor& named) {
    return named.name.starts_with(kOptimizerPrefix) || named.name.starts_with(kStatisticPrefix);
  });
  return state;
}

absl::StatusOr<std::unique_ptr<LayerRunner>> LayerRunner::Create(LayerIndex index,
                                                                 std::unique_ptr<Layer> layer,
                                                                 const Options& options) {
  MoveToDevice(*layer, options.device);
  std::unique_ptr<LayerRunner> runner(new LayerRunner(index, std::move(layer), options));
  for (const NamedTensor& parameter : runner->layer_->parameters())
    runner->parameters_.push_back(parameter.tensor);
  SP_RETURN_IF_ERROR(runner->Unfreeze());
  return runner;
}

absl::Status LayerRunner::Unfreeze() {
  SP_ASSIGN_OR_RETURN(optimizer_, MakeOptimizer(options_.optim, *layer_));
  statistic_.emplace(options_.per_microbatch_norms, options_.num_microbatches);
  frozen_ = false;
  return absl::OkStatus();
}

void LayerRunner::Freeze() {
  frozen_ = true;
  optimizer_.reset();
  statistic_.reset();
  gradients_.clear();
}

at::Tensor LayerRunner::Forward(MicrobatchIndex microbatch, const at::Tensor& x, bool input_grad) {
  WorkWatch watch(options_.device, forward_);
  at::Tensor output;
  if (frozen_) {
    output = Evaluate(x);
    if (output.requires_grad()) ++counters_.num_graphs;
  } else {
    at::AutoGradMode record(true);
    at::Tensor leaf = x.detach();
    if (input_grad) leaf.requires_grad_(true);
    at::Tensor recorded = layer_->Forward(leaf, Mode::kTrain);
    ++counters_.num_graphs;
    output = recorded.detach();
    activation_bytes_ = static_cast<int64_t>(leaf.nbytes() + recorded.nbytes());
    saved_[microbatch] = {std::move(leaf), std::move(recorded), {}};
    counters_.peak_saved = std::max(counters_.peak_saved, static_cast<int64_t>(saved_.size()));
  }
  output_bytes_ = static_cast<int64_t>(output.nbytes());
  watch.Lap(forward_);
  return output;
}

at::Tensor LayerRunner::Evaluate(const at::Tensor& x) {
  at::NoGradGuard no_grad;
  return layer_->Forward(x, Mode::kEval);
}

at::Tensor LayerRunner::Backward(MicrobatchIndex microbatch, const at::Tensor& output_grad,
                                 bool probe) {
  auto node = saved_.extract(microbatch);
  const Saved& saved = node.mapped();
  const bool has_input_grad = saved.x.requires_grad();
  WorkWatch watch(options_.device, has_input_grad ? backward_ : weight_grad_);
  if (probe && has_input_grad) {
    Gradients(saved.output, parameters_, output_grad, /*retain_graph=*/true);
    watch.Lap(weight_grad_);
  }
  std::vector<at::Tensor> inputs = parameters_;
  if (has_input_grad) inputs.push_back(saved.x);
  std::vector<at::Tensor> gradients =
      Gradients(saved.output, inputs, output_grad, /*retain_graph=*/false);
  at::Tensor input_grad;
  if (has_input_grad) {
    input_grad = gradients.back().contiguous();
    gradients.pop_back();
    ++counters_.num_gradient_tensors;
  }
  watch.Lap(has_input_grad ? backward_ : weight_grad_);
  Accumulate(gradients);
  return input_grad;
}

at::Tensor LayerRunner::InputGrad(MicrobatchIndex microbatch, const at::Tensor& output_grad) {
  Saved& saved = saved_.at(microbatch);
  saved.output_grad = output_grad;
  if (!saved.x.requires_grad()) return {};
  WorkWatch watch(options_.device, input_grad_);
  at::Tensor input_grad =
      Gradients(saved.output, {saved.x}, output_grad, /*retain_graph=*/true)[0].contiguous();
  ++counters_.num_gradient_tensors;
  watch.Lap(input_grad_);
  return input_grad;
}

void LayerRunner::WeightGrad(MicrobatchIndex microbatch) {
  auto node = saved_.extract(microbatch);
  const Saved& saved = node.mapped();
  WorkWatch watch(options_.device, weight_grad_);
  std::vector<at::Tensor> gradients =
      Gradients(saved.output, parameters_, saved.output_grad, /*retain_graph=*/false);
  watch.Lap(weight_grad_);
  Accumulate(gradients);
}

void LayerRunner::Accumulate(const std::vector<at::Tensor>& gradients) {
  at::NoGradGuard no_grad;
  counters_.num_gradient_tensors += static_cast<int64_t>(gradients.size());
  if (statistic_->per_microbatch()) {
    WorkStopwatch watch;
    statistic_->AddMicrobatch(gradients);
    statistic_s_ += watch.seconds();
  }
  WorkWatch watch(options_.device, accumulate_);
  if (gradients_.empty()) {
    // A gradient may be a view of something that autograd still owns: the accumulator owns its
    // bytes.
    for (const at::Tensor& gradient : gradients) {
      const bool own = gradient.is_contiguous() && gradient.storage().use_count() == 1;
      gradients_.push_back(own ? gradient : gradient.clone(at::MemoryFormat::Contiguous));
    }
  } else {
    for (size_t i = 0; i < gradients.size(); ++i) gradients_[i].add_(gradients[i]);
  }
  watch.Lap(accumulate_);
}

void LayerRunner::Optimize() {
  if (frozen_ || gradients_.empty()) return;
  WorkStopwatch statistic_watch;
  statistic_->AddStep(gradients_);
  statistic_s_ += statistic_watch.seconds();
  WorkWatch watch(options_.device, optimize_);
  optimizer_->Step(gradients_);
  gradients_.clear();
  watch.Lap(optimize_);
}

LayerCost LayerRunner::TakeCost() {
  const auto take = [](WorkTimes& times, double when_empty) {
    std::vector<double> seconds = times.Take();
    return Median(seconds, when_empty);
  };
  LayerCost cost;
  cost.forward_s = take(forward_, -1);
  cost.weight_grad_s = take(weight_grad_, -1);
  cost.input_grad_s = take(input_grad_, -1);
  const double fused_s = take(backward_, -1);
  if (fused_s >= 0 && cost.weight_grad_s >= 0) {
    // The probe is one sample; the fused time is a median of many. Keep their sum at the fused
    // time.
    cost.weight_grad_s = std::min(cost.weight_grad_s, fused_s);
    cost.input_grad_s = fused_s - cost.weight_grad_s;
  }
  const double accumulate_s = take(accumulate_, 0);
  if (cost.weight_grad_s >= 0) cost.weight_grad_s += accumulate_s;
  cost.optimize_s = take(optimize_, -1);
  cost.output_bytes = output_bytes_;
  cost.param_bytes = Bytes(layer_->parameters()) + Bytes(layer_->buffers());
  cost.activation_bytes = activation_bytes_;
  cost.state_bytes = cost.param_bytes;
  if (!frozen_) cost.state_bytes += optimizer_->state_bytes() + 2 * Bytes(layer_->parameters());
  return cost;
}

double LayerRunner::TakeStatisticSeconds() { return std::exchange(statistic_s_, 0); }

std::vector<NamedTensor> LayerRunner::State() const {
  std::vector<NamedTensor> state = layer_->parameters();
  state.insert(state.end(), layer_->buffers().begin(), layer_->buffers().end());
  if (frozen_) return state;
  for (NamedTensor& named : optimizer_->State())
    state.push_back({kOptimizerPrefix + named.name, named.tensor});
  for (NamedTensor& named : statistic_->State())
    state.push_back({kStatisticPrefix + named.name, named.tensor});
  return state;
}

absl::Status LayerRunner::LoadState(const std::vector<NamedTensor>& state, bool frozen) {
  at::NoGradGuard no_grad;
  size_t next = 0;
  for (const std::vector<NamedTensor>* own : {&layer_->parameters(), &layer_->buffers()}) {
    for (const NamedTensor& target : *own) {
      if (next >= state.size() || state[next].name != target.name ||
          state[next].tensor.sizes() != target.tensor.sizes() ||
          state[next].tensor.scalar_type() != target.tensor.scalar_type()) {
        return absl::DataLossError(absl::StrCat("received state of layer ", index_.value(), " \"",
                                                layer_->name(), "\" lacks tensor \"", target.name,
                                                "\" of the right type and shape"));
      }
      target.tensor.copy_(state[next++].tensor);
    }
  }
  if (frozen) {
    Freeze();
    return absl::OkStatus();
  }
  if (next == state.size()) return absl::OkStatus();  // of a frozen layer: weights and buffers
  SP_RETURN_IF_ERROR(optimizer_->LoadState(TakePrefixed(state, kOptimizerPrefix, options_.device)));
  return statistic_->LoadState(TakePrefixed(state, kStatisticPrefix, options_.device));
}

}  // namespace smartpipe
