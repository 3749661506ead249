// One optimizer object per layer, whose state belongs to the layer and moves with it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "services/config/run_config.h"
#include "worker/model/layer.h"

namespace smartpipe {

/// Threads: one.
class LayerOptimizer {
 public:
  virtual ~LayerOptimizer() = default;
  /// gradients: one per parameter of the layer, same shapes. Updates the parameters in place.
  virtual void Step(const std::vector<at::Tensor>& gradients) = 0;
  /// State as named tensors (momentum buffers; first and second moments and step), and back. Empty
  /// before the first step.
  virtual std::vector<NamedTensor> State() const = 0;
  virtual absl::Status LoadState(const std::vector<NamedTensor>& state) = 0;
  virtual int64_t state_bytes() const = 0;
};

/// `layer` must outlive the optimizer.  Errors: INVALID_ARGUMENT for an unknown name.
absl::StatusOr<std::unique_ptr<LayerOptimizer>> MakeOptimizer(const OptimConfig& config,
                                                              const Layer& layer);

}  // namespace smartpipe
