// What layers are made of: convolution, batch normalisation, linear, each with its own parameters,
// named and initialised as torchvision does, but with keyed random numbers.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "ATen/core/Tensor.h"
#include "services/base/ids.h"
#include "worker/model/layer.h"

namespace smartpipe {

/// Makes a layer's parameters and buffers in the order of the weights file.
///
/// Random values depend on (seed, layer, position in the list of parameters) alone. Threads: one.
class ParameterMaker {
 public:
  /// Appends to the two lists, which must outlive it.
  ParameterMaker(int64_t seed, LayerIndex layer, std::vector<NamedTensor>& parameters,
                 std::vector<NamedTensor>& buffers)
      : seed_(seed), layer_(layer), parameters_(parameters), buffers_(buffers) {}

  at::Tensor Normal(const std::string& name, const std::vector<int64_t>& shape, double deviation);
  at::Tensor Uniform(const std::string& name, const std::vector<int64_t>& shape, double bound);
  at::Tensor Constant(const std::string& name, const std::vector<int64_t>& shape, double value);
  /// `dtype` is float32 or int64.
  at::Tensor Buffer(const std::string& name, const std::vector<int64_t>& shape, double value,
                    at::ScalarType dtype);

 private:
  at::Tensor Keep(const std::string& name, const at::Tensor& tensor);
  at::Generator NextGenerator() const;

  const int64_t seed_;
  const LayerIndex layer_;
  std::vector<NamedTensor>& parameters_;
  std::vector<NamedTensor>& buffers_;
};

/// Square kernel without bias. Initialised by He's normal distribution for ReLU over the fan-out.
class Conv2d {
 public:
  struct Options {
    int64_t in_channels = 1, out_channels = 1, kernel = 3, stride = 1, padding = 1;
  };
  /// Names its weight `prefix`.weight.
  Conv2d(const std::string& prefix, const Options& options, ParameterMaker& make);
  at::Tensor Forward(const at::Tensor& x) const;
  /// [C, H, W] -> [C, H, W].
  std::vector<int64_t> OutputShape(const std::vector<int64_t>& input_shape) const;

 private:
  const Options options_;
  at::Tensor weight_;
};

/// Torch's batch normalisation: eps 1e-5, running statistics with momentum 0.1; weight 1, bias 0.
class BatchNorm2d {
 public:
  BatchNorm2d(const std::string& prefix, int64_t num_channels, ParameterMaker& make);
  at::Tensor Forward(const at::Tensor& x, Mode mode) const;

 private:
  at::Tensor weight_, bias_, running_mean_, running_var_, num_batches_tracked_;
};

/// Torch's linear layer and its default initialisation.
class Linear {
 public:
  Linear(const std::string& prefix, int64_t in_features, int64_t out_features,
         ParameterMaker& make);
  at::Tensor Forward(const at::Tensor& x) const;

 private:
  at::Tensor weight_, bias_;
};

/// Convolution, batch normalisation, ReLU, with the parameters `conv_prefix`.* and `bn_prefix`.*.
class ConvBnReluLayer final : public Layer {
 public:
  ConvBnReluLayer(const std::string& name, const std::string& conv_prefix,
                  const std::string& bn_prefix, const Conv2d::Options& options, LayerIndex layer,
                  int64_t seed);
  at::Tensor Forward(const at::Tensor& x, Mode mode) override;
  std::vector<int64_t> OutputShape(const std::vector<int64_t>& input_shape) const override;

 private:
  ParameterMaker make_;
  Conv2d conv_;
  BatchNorm2d bn_;
};

/// Global average, then linear `linear_prefix`.* to the classes: [C, H, W] -> [classes].
class HeadLayer final : public Layer {
 public:
  HeadLayer(const std::string& name, const std::string& linear_prefix, int64_t in_channels,
            int64_t num_classes, LayerIndex layer, int64_t seed);
  at::Tensor Forward(const at::Tensor& x, Mode mode) override;
  std::vector<int64_t> OutputShape(const std::vector<int64_t>& input_shape) const override;

 private:
  const int64_t num_classes_;
  ParameterMaker make_;
  Linear linear_;
};

}  // namespace smartpipe
