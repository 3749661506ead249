// A tensor as plain data: dtype name, extents, bytes. Shared by digest, pack and weights file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/strings/string_view.h"

namespace smartpipe {

/// Name of a dtype as in safetensors ("F32", "I64"). The dtype must be one that DtypeFromName
/// gives.
absl::string_view DtypeName(at::ScalarType dtype);
/// Nothing for an unknown name and for dtypes that no model here has (8-bit floats, bool).
std::optional<at::ScalarType> DtypeFromName(absl::string_view name);

/// Bytes of a tensor of these extents; nothing for a negative extent or a size beyond 2^63 - 1.
std::optional<int64_t> ByteSize(at::ScalarType dtype, const std::vector<int64_t>& extents);

/// The same values in row-major order in CPU memory: the tensor itself where it is so already.
at::Tensor RowMajor(const at::Tensor& tensor);
/// The bytes of a RowMajor tensor, valid as long as it lives.
absl::string_view BytesOf(const at::Tensor& row_major);
/// A fresh tensor with its own aligned storage. `extents` as ByteSize accepts.
at::Tensor EmptyTensor(at::ScalarType dtype, const std::vector<int64_t>& extents);

}  // namespace smartpipe
