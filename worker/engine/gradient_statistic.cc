#include "worker/engine/gradient_statistic.h"

#include <cmath>
#include <string>
#include <utility>

#include "ATen/core/grad_mode.h"
#include "ATen/ops/add.h"
#include "ATen/ops/empty.h"
#include "ATen/ops/full.h"
#include "ATen/ops/linalg_vector_norm.h"
#include "ATen/ops/sub.h"
#include "absl/strings/str_cat.h"

namespace smartpipe {
namespace {

double SquaredNorm(const std::vector<at::Tensor>& tensors) {
  double sum = 0;
  for (const at::Tensor& tensor : tensors) {
    const double norm = at::linalg_vector_norm(tensor, 2, {}, false, at::kDouble).item<double>();
    sum += norm * norm;
  }
  return sum;
}

// The same on the tensors' device, without waiting for it.
at::Tensor SquaredNormOnDevice(const std::vector<at::Tensor>& tensors) {
  at::Tensor sum;
  for (const at::Tensor& tensor : tensors) {
    const at::Tensor norm = at::linalg_vector_norm(tensor, 2, {}, false, at::kDouble);
    const at::Tensor square = norm.mul(norm);
    sum = sum.defined() ? sum.add(square) : square;
  }
  return sum;
}

}  // namespace

void GradientStatistic::AddMicrobatch(const std::vector<at::Tensor>& gradients) {
  if (!per_microbatch_) return;
  ++num_microbatches_;
  if (gradients.empty() || gradients[0].is_cpu()) {
    microbatch_norm2_sum_ += SquaredNorm(gradients) / (weight_ * weight_);
    return;
  }
  at::Tensor& sum = microbatch_norm2_on_device_;
  if (!sum.defined())
    sum = at::full({}, microbatch_norm2_sum_, gradients[0].options().dtype(at::kDouble));
  sum.add_(SquaredNormOnDevice(gradients).div(weight_ * weight_));
}

double GradientStatistic::MicrobatchNorm2Sum() const {
  if (!microbatch_norm2_on_device_.defined()) return microbatch_norm2_sum_;
  return microbatch_norm2_on_device_.item<double>();
}

void GradientStatistic::AddStep(const std::vector<at::Tensor>& gradients) {
  at::NoGradGuard no_grad;
  if (sum_.empty()) {
    for (const at::Tensor& gradient : gradients) sum_.push_back(gradient.clone());
  } else {
    for (size_t i = 0; i < gradients.size(); ++i) sum_[i].add_(gradients[i]);
  }
  ++num_steps_;
}

GradientNorms GradientStatistic::EndInterval() {
  at::NoGradGuard no_grad;
  GradientNorms norms;
  if (num_steps_ == 0) return norms;
  for (at::Tensor& sum : sum_) sum.div_(static_cast<double>(num_steps_));
  const std::vector<at::Tensor>& mean = sum_;
  norms.mean = std::sqrt(SquaredNorm(mean));
  norms.num_nonfinite_steps = std::isfinite(norms.mean) ? 0 : 1;
  norms.num_microbatches = num_microbatches_;
  norms.microbatch_norm2 = num_microbatches_ > 0 ? MicrobatchNorm2Sum() / num_microbatches_ : 0;
  if (!previous_mean_.empty()) {
    norms.has_previous = true;
    norms.previous_mean = std::sqrt(SquaredNorm(previous_mean_));
    norms.previous_microbatch_norm2 = previous_microbatch_norm2_;
    for (size_t i = 0; i < mean.size(); ++i) previous_mean_[i].sub_(mean[i]);
    norms.difference = std::sqrt(SquaredNorm(previous_mean_));
  }
  previous_mean_ = std::exchange(sum_, {});
  previous_microbatch_norm2_ = norms.microbatch_norm2;
  num_steps_ = 0;
  num_microbatches_ = 0;
  microbatch_norm2_sum_ = 0;
  microbatch_norm2_on_device_.reset();
  return norms;
}

std::vector<NamedTensor> GradientStatistic::State() const {
  at::Tensor numbers = at::empty({4}, at::kDouble);
  double* values = numbers.data_ptr<double>();
  values[0] = static_cast<double>(num_steps_);
  values[1] = static_cast<double>(num_microbatches_);
  values[2] = MicrobatchNorm2Sum();
  values[3] = previous_microbatch_norm2_;
  std::vector<NamedTensor> state{{"numbers", numbers}};
  for (size_t i = 0; i < sum_.size(); ++i) state.push_back({absl::StrCat("sum.", i), sum_[i]});
  for (size_t i = 0; i < previous_mean_.size(); ++i) {
    state.push_back({absl::StrCat("previous.", i), previous_mean_[i]});
  }
  return state;
}

absl::Status GradientStatistic::LoadState(const std::vector<NamedTensor>& state) {
  if (state.empty() || state[0].name != "numbers" || state[0].tensor.numel() != 4) {
    return absl::DataLossError("statistic state does not start with its 4 numbers");
  }
  const at::Tensor numbers = state[0].tensor;
  const double* values = numbers.const_data_ptr<double>();
  num_steps_ = static_cast<int64_t>(values[0]);
  num_microbatches_ = static_cast<int64_t>(values[1]);
  microbatch_norm2_sum_ = values[2];
  microbatch_norm2_on_device_.reset();
  previous_microbatch_norm2_ = values[3];
  sum_.clear();
  previous_mean_.clear();
  for (size_t i = 1; i < state.size(); ++i) {
    if (state[i].name.starts_with("sum.")) {
      sum_.push_back(state[i].tensor);
    } else if (state[i].name.starts_with("previous.")) {
      previous_mean_.push_back(state[i].tensor);
    } else {
      return absl::DataLossError(
          absl::StrCat("statistic state holds an unknown tensor \"", state[i].name, "\""));
    }
  }
  return absl::OkStatus();
}

}  // namespace smartpipe
