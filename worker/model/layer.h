// A layer: the smallest unit that can be frozen or moved.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "ATen/core/Tensor.h"

namespace smartpipe {

struct NamedTensor {
  std::string name;  // as in the weights file, e.g. "layer1.0.conv1.weight"
  at::Tensor tensor;
};

enum class Mode {
  kTrain,  // BatchNorm uses and updates batch statistics
  kEval,   // BatchNorm uses running statistics, nothing is updated: frozen layers and evaluation
};

/// One entry of a model's layer list, over at:: functions and autograd.
///
/// Tensors at layer edges are float32, contiguous (NCHW); Forward returns a contiguous tensor.
/// Threads: one.
class Layer {
 public:
  virtual ~Layer() = default;
  const std::string& name() const { return name_; }
  /// x: [n, ...input_shape]. Records autograd as the caller's grad mode says.
  virtual at::Tensor Forward(const at::Tensor& x, Mode mode) = 0;
  /// Shape of one sample at the output edge for one sample at the input edge.
  virtual std::vector<int64_t> OutputShape(const std::vector<int64_t>& input_shape) const = 0;

  /// In the order of the weights file; parameters are leaves that require gradients.
  const std::vector<NamedTensor>& parameters() const { return parameters_; }
  /// Running means and variances, int64 counters.
  const std::vector<NamedTensor>& buffers() const { return buffers_; }

 protected:
  explicit Layer(std::string name) : name_(std::move(name)) {}
  std::string name_;
  std::vector<NamedTensor> parameters_, buffers_;
};

}  // namespace smartpipe
