// A layer's bytes: digest, packing for migration, weights files.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "services/base/content_digest.h"
#include "services/base/ids.h"
#include "worker/model/layer.h"

namespace smartpipe {

/// Incremental sha256 over name, dtype, shape and little-endian bytes of tensors: the run's
/// `weights_sha256` when fed with each layer's parameters, then buffers, in layer order. Encoding
/// per tensor: uint64 name length, name, uint64 dtype-name length, dtype name as in safetensors
/// ("F32", "I64"), uint64 number of dimensions, each as int64, then the contiguous bytes. All
/// integers little-endian.
class WeightsDigest {
 public:
  void Add(const NamedTensor& tensor);
  void Add(const Layer& layer);
  /// Lowercase hex. Call once.
  std::string Finish();

 private:
  ContentHasher hasher_;
};

/// Packs named tensors (any dtypes, empty list allowed) into one uint8 tensor and back; the digest
/// is part of the pack and checked by Unpack (DATA_LOSS when it does not fit, INVALID_ARGUMENT for
/// a torn pack).
at::Tensor PackTensors(const std::vector<NamedTensor>& tensors);
absl::StatusOr<std::vector<NamedTensor>> UnpackTensors(const at::Tensor& packed);
absl::StatusOr<std::vector<NamedTensor>> UnpackTensors(absl::string_view packed);

/// Weights files: safetensors. Written to a temporary name, synced, renamed. Errors name the path
/// and the cause.
absl::Status WriteSafetensors(const std::string& path, const std::vector<NamedTensor>& tensors);
/// Bounds-checked: a hostile or truncated file gives DATA_LOSS, never a crash or an allocation
/// beyond the file's size.
absl::StatusOr<std::vector<NamedTensor>> ReadSafetensors(const std::string& path);

/// INVALID_ARGUMENT, naming the tensor, if it holds NaN or infinity.
absl::Status CheckFinite(const NamedTensor& tensor);

/// Copies tensors into a layer's parameters and buffers by name. `found` counts the names used.
/// Errors: INVALID_ARGUMENT for another dtype or shape; NOT_FOUND for a missing name unless
/// allow_partial.
absl::Status LoadIntoLayer(const std::vector<NamedTensor>& tensors, bool allow_partial,
                           Layer& layer, int64_t& found);

}  // namespace smartpipe
