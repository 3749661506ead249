// Datasets: fixed-size samples that can be read in any order from any process.
//
// A new dataset is one file in worker/data/, one line in the table of dataset.cc, one test.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "services/config/run_config.h"

namespace smartpipe {

enum class Split { kTrain, kTest };

/// Read-only after construction.  Threads: const methods from any thread.
class Dataset {
 public:
  virtual ~Dataset() = default;
  virtual int64_t size(Split split) const = 0;
  virtual int64_t num_classes() const = 0;
  /// Shape of one sample, [C, H, W].
  virtual std::vector<int64_t> sample_shape() const = 0;
  /// Normalised float32 [n, C, H, W], contiguous, own 64-byte aligned storage. Indices in [0,
  /// size(split)).
  virtual at::Tensor Images(Split split, absl::Span<const int64_t> indices) const = 0;
  /// int64 [n].
  virtual at::Tensor Labels(Split split, absl::Span<const int64_t> indices) const = 0;
};

/// Opens the dataset that `config.data` names, cut to limit_train / limit_test (the first samples).
/// `seed` is used by generated datasets only. Errors: NOT_FOUND for a missing file (with the
/// package that brings it), DATA_LOSS for a truncated or corrupt one (file, what was expected, what
/// was found), INVALID_ARGUMENT for an unknown name.
absl::StatusOr<std::unique_ptr<Dataset>> OpenDataset(const RunConfig& config);

}  // namespace smartpipe
