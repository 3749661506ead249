// IDX, the file format of the MNIST family: a magic number, the extents, then bytes.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace smartpipe {

struct IdxBytes {
  std::vector<int64_t> extents;
  std::vector<uint8_t> values;  // row-major, the product of the extents
};

/// Reads a file of unsigned bytes with `num_dimensions` extents, plain or gzip (told by its
/// content).
///
/// Inputs:  num_dimensions in [1, 4].
/// Output:  every extent >= 1; exactly as many values as the extents say.
/// Errors:  NOT_FOUND when there is no such file; DATA_LOSS when it cannot be read or is not
/// exactly
///          such a file (what was expected, what was found). Never allocates more than a small
///          multiple of what a file of this size can hold.
/// Source:  http://yann.lecun.com/exdb/mnist, "the IDX file format".
/// Threads: any.  Test: tests/fuzz/idx/idx_fuzz_test.cc
absl::StatusOr<IdxBytes> ReadIdx(const std::string& path, int num_dimensions);

}  // namespace smartpipe
