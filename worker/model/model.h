// Models as layer lists.
//
// A new model is one file in worker/model/, one line in the table of model.cc, one test.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "services/base/ids.h"
#include "worker/model/layer.h"

namespace smartpipe {

/// How to build each layer of a model; building one layer costs nothing for the others, so a worker
/// builds only its own.
class ModelSpec {
 public:
  virtual ~ModelSpec() = default;
  virtual int32_t num_layers() const = 0;
  virtual std::string layer_name(LayerIndex layer) const = 0;
  /// A fresh layer with its keyed initialisation: the same bytes for (seed, layer) in every
  /// process.
  virtual std::unique_ptr<Layer> MakeLayer(LayerIndex layer, int64_t seed) const = 0;
};

/// Errors: INVALID_ARGUMENT for an unknown name (nearest given) or a sample shape that the model
/// cannot take. sample_shape: [C, H, W].
absl::StatusOr<std::unique_ptr<ModelSpec>> MakeModel(const std::string& name,
                                                     const std::vector<int64_t>& sample_shape,
                                                     int64_t num_classes);

/// Sample shapes at all layer edges, num_layers + 1 entries (first = input).
std::vector<std::vector<int64_t>> EdgeShapes(const std::vector<std::unique_ptr<Layer>>& layers,
                                             const std::vector<int64_t>& sample_shape);

/// Mean cross-entropy of one micro-batch. logits: [n, classes], labels: int64 [n]; scalar.
at::Tensor CrossEntropy(const at::Tensor& logits, const at::Tensor& labels);

}  // namespace smartpipe
