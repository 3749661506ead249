// Helpers for tests that hold whole models.
#pragma once

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "ATen/core/Tensor.h"
#include "worker/data/keyed_random.h"
#include "worker/model/layer.h"
#include "worker/model/layer_state.h"
#include "worker/model/model.h"

namespace smartpipe::testutil {

inline std::vector<std::unique_ptr<Layer>> MakeLayers(const ModelSpec& model, int64_t seed) {
  std::vector<std::unique_ptr<Layer>> layers;
  for (LayerIndex layer(0); layer.value() < model.num_layers(); ++layer) {
    layers.push_back(model.MakeLayer(layer, seed));
  }
  return layers;
}

inline std::string Digest(const Layer& layer) {
  WeightsDigest digest;
  digest.Add(layer);
  return digest.Finish();
}

inline bool SameBytes(const at::Tensor& a, const at::Tensor& b) {
  return a.sizes() == b.sizes() && a.scalar_type() == b.scalar_type() &&
         (a.nbytes() == 0 || std::memcmp(a.const_data_ptr(), b.const_data_ptr(), a.nbytes()) == 0);
}

/// Normal float32 values keyed by `key`.
at::Tensor Normal(const std::vector<int64_t>& shape, int64_t key);

}  // namespace smartpipe::testutil
