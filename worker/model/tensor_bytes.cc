#include "worker/model/tensor_bytes.h"

#include <bit>

#include "ATen/ops/empty.h"
#include "c10/core/ScalarType.h"
#include "c10/util/Exception.h"

namespace smartpipe {
namespace {

static_assert(std::endian::native == std::endian::little,
              "digest, pack and weights file copy little-endian memory");

struct DtypeRow {
  at::ScalarType dtype;
  absl::string_view name;
};

constexpr DtypeRow kDtypes[] = {
    {at::kFloat, "F32"}, {at::kLong, "I64"}, {at::kDouble, "F64"},
    {at::kHalf, "F16"},  {at::kInt, "I32"},  {at::kShort, "I16"},
    {at::kChar, "I8"},   {at::kByte, "U8"},  {at::kBFloat16, "BF16"},
};

}  // namespace

absl::string_view DtypeName(at::ScalarType dtype) {
  for (const DtypeRow& row : kDtypes) {
    if (row.dtype == dtype) return row.name;
  }
  TORCH_CHECK(false, "tensors of dtype ", c10::toString(dtype), " have no place in a weights file");
}

std::optional<at::ScalarType> DtypeFromName(absl::string_view name) {
  for (const DtypeRow& row : kDtypes) {
    if (row.name == name) return row.dtype;
  }
  return std::nullopt;
}

std::optional<int64_t> ByteSize(at::ScalarType dtype, const std::vector<int64_t>& extents) {
  // Zero extents do not excuse the others: Torch multiplies all of them for the strides.
  auto size = static_cast<int64_t>(c10::elementSize(dtype));
  bool is_empty = false;
  for (const int64_t extent : extents) {
    if (extent < 0) return std::nullopt;
    if (extent == 0) is_empty = true;
    if (extent > 0 && __builtin_mul_overflow(size, extent, &size)) return std::nullopt;
  }
  return is_empty ? 0 : size;
}

at::Tensor RowMajor(const at::Tensor& tensor) { return tensor.detach().cpu().contiguous(); }

absl::string_view BytesOf(const at::Tensor& row_major) {
  return {static_cast<const char*>(row_major.const_data_ptr()), row_major.nbytes()};
}

at::Tensor EmptyTensor(at::ScalarType dtype, const std::vector<int64_t>& extents) {
  return at::empty(extents, dtype);
}

}  // namespace smartpipe
