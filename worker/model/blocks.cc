#include "worker/model/blocks.h"

#include <cmath>

#include "ATen/core/grad_mode.h"
#include "ATen/ops/avg_pool2d.h"
#include "ATen/ops/batch_norm.h"
#include "ATen/ops/conv2d.h"
#include "ATen/ops/empty.h"
#include "ATen/ops/full.h"
#include "ATen/ops/linear.h"
#include "worker/data/keyed_random.h"

namespace smartpipe {
namespace {

constexpr double kBatchNormMomentum = 0.1, kBatchNormEps = 1e-5;

}  // namespace

at::Generator ParameterMaker::NextGenerator() const {
  return KeyedGenerator(seed_, RandomPurpose::kInit, layer_.value(),
                        static_cast<int64_t>(parameters_.size()));
}

at::Tensor ParameterMaker::Keep(const std::string& name, const at::Tensor& tensor) {
  tensor.requires_grad_(true);
  parameters_.push_back({name, tensor});
  return tensor;
}

at::Tensor ParameterMaker::Normal(const std::string& name, const std::vector<int64_t>& shape,
                                  double deviation) {
  return Keep(name, at::empty(shape, at::kFloat).normal_(0, deviation, NextGenerator()));
}

at::Tensor ParameterMaker::Uniform(const std::string& name, const std::vector<int64_t>& shape,
                                   double bound) {
  return Keep(name, at::empty(shape, at::kFloat).uniform_(-bound, bound, NextGenerator()));
}

at::Tensor ParameterMaker::Constant(const std::string& name, const std::vector<int64_t>& shape,
                                    double value) {
  return Keep(name, at::full(shape, value, at::kFloat));
}

at::Tensor ParameterMaker::Buffer(const std::string& name, const std::vector<int64_t>& shape,
                                  double value, at::ScalarType dtype) {
  buffers_.push_back({name, at::full(shape, value, dtype)});
  return buffers_.back().tensor;
}

Conv2d::Conv2d(const std::string& prefix, const Options& options, ParameterMaker& make)
    : options_(options) {
  const int64_t fan_out = options.out_channels * options.kernel * options.kernel;
  weight_ = make.Normal(prefix + ".weight",
                        {options.out_channels, options.in_channels, options.kernel, options.kernel},
                        std::sqrt(2.0 / static_cast<double>(fan_out)));
}

at::Tensor Conv2d::Forward(const at::Tensor& x) const {
  return at::conv2d(x, weight_, /*bias=*/{}, {options_.stride, options_.stride},
                    at::IntArrayRef({options_.padding, options_.padding}));
}

std::vector<int64_t> Conv2d::OutputShape(const std::vector<int64_t>& input_shape) const {
  std::vector<int64_t> shape = {options_.out_channels};
  for (const size_t axis : {1, 2}) {
    shape.push_back((input_shape[axis] + 2 * options_.padding - options_.kernel) / options_.stride +
                    1);
  }
  return shape;
}

BatchNorm2d::BatchNorm2d(const std::string& prefix, int64_t num_channels, ParameterMaker& make)
    : weight_(make.Constant(prefix + ".weight", {num_channels}, 1)),
      bias_(make.Constant(prefix + ".bias", {num_channels}, 0)),
      running_mean_(make.Buffer(prefix + ".running_mean", {num_channels}, 0, at::kFloat)),
      running_var_(make.Buffer(prefix + ".running_var", {num_channels}, 1, at::kFloat)),
      num_batches_tracked_(make.Buffer(prefix + ".num_batches_tracked", {}, 0, at::kLong)) {}

at::Tensor BatchNorm2d::Forward(const at::Tensor& x, Mode mode) const {
  const bool training = mode == Mode::kTrain;
  if (training) ++*num_batches_tracked_.mutable_data_ptr<int64_t>();
  return at::batch_norm(x, weight_, bias_, running_mean_, running_var_, training,
                        kBatchNormMomentum, kBatchNormEps, /*cudnn_enabled=*/false);
}

Linear::Linear(const std::string& prefix, int64_t in_features, int64_t out_features,
               ParameterMaker& make) {
  const double bound = 1 / std::sqrt(static_cast<double>(in_features));
  weight_ = make.Uniform(prefix + ".weight", {out_features, in_features}, bound);
  bias_ = make.Uniform(prefix + ".bias", {out_features}, bound);
}

at::Tensor Linear::Forward(const at::Tensor& x) const { return at::linear(x, weight_, bias_); }

ConvBnReluLayer::ConvBnReluLayer(const std::string& name, const std::string& conv_prefix,
                                 const std::string& bn_prefix, const Conv2d::Options& options,
                                 LayerIndex layer, int64_t seed)
    : Layer(name),
      make_(seed, layer, parameters_, buffers_),
      conv_(conv_prefix, options, make_),
      bn_(bn_prefix, options.out_channels, make_) {}

at::Tensor ConvBnReluLayer::Forward(const at::Tensor& x, Mode mode) {
  // Batch normalisation's backward needs its input only, so ReLU may overwrite its output.
  at::Tensor y = bn_.Forward(conv_.Forward(x), mode);
  return y.relu_();
}

std::vector<int64_t> ConvBnReluLayer::OutputShape(const std::vector<int64_t>& input_shape) const {
  return conv_.OutputShape(input_shape);
}

HeadLayer::HeadLayer(const std::string& name, const std::string& linear_prefix, int64_t in_channels,
                     int64_t num_classes, LayerIndex layer, int64_t seed)
    : Layer(name),
      num_classes_(num_classes),
      make_(seed, layer, parameters_, buffers_),
      linear_(linear_prefix, in_channels, num_classes, make_) {}

at::Tensor HeadLayer::Forward(const at::Tensor& x, Mode /*mode*/) {
  // Not a mean over the two axes: its gradient would be an expanded tensor, which is not
  // contiguous.
  const at::Tensor average = at::avg_pool2d(x, {x.size(2), x.size(3)});
  return linear_.Forward(average.flatten(1));
}

std::vector<int64_t> HeadLayer::OutputShape(const std::vector<int64_t>& /*input_shape*/) const {
  return {num_classes_};
}

}  // namespace smartpipe
