// The datasets behind OpenDataset, one file each; the table is in dataset.cc.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "services/config/run_config.h"
#include "worker/data/dataset.h"

namespace smartpipe {

/// 60,000 training and 10,000 test images of clothes, [1, 28, 28], 10 classes, from IDX files,
/// plain or gzip, in data.path (empty: where the package dataset-fashion-mnist puts them). Errors:
/// as OpenDataset.
absl::StatusOr<std::unique_ptr<Dataset>> OpenFashionMnist(const RunConfig& config);

/// Generated [3, 32, 32] images in 10 classes that a model can learn: a pattern of the class under
/// noise. 4096 training and 512 test samples, or as many as data.limit_train and data.limit_test
/// say; beyond 4096 the images repeat. Keyed by (train.seed, split, sample).  Errors: none.
absl::StatusOr<std::unique_ptr<Dataset>> OpenSynthetic(const RunConfig& config);

}  // namespace smartpipe
