// Fashion-MNIST (Xiao, Rasul, Vollgraf 2017): https://github.com/zalandoresearch/fashion-mnist
#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "services/base/status_macros.h"
#include "worker/data/byte_dataset.h"
#include "worker/data/datasets.h"
#include "worker/data/idx.h"

namespace smartpipe {
namespace {

constexpr char kDefaultFolder[] = "/usr/share/datasets/fashion-mnist";
constexpr int64_t kHeight = 28, kWidth = 28, kNumClasses = 10;
constexpr float kMean = 0.2860f, kDeviation = 0.3530f;  // of the training images, pixels in [0, 1]

/// The file `name` or `name`.gz in `folder`.
absl::StatusOr<std::string> Find(const std::string& folder, const std::string& name) {
  for (const char* suffix : {"", ".gz"}) {
    const std::string path = absl::StrCat(folder, "/", name, suffix);
    std::error_code error;
    if (std::filesystem::is_regular_file(path, error)) return path;
  }
  return absl::NotFoundError(
      absl::StrCat("no file ", name, " or ", name, ".gz in ", folder,
                   ": install the package dataset-fashion-mnist (apt-get install "
                   "dataset-fashion-mnist), or let data.path name a folder that has the files"));
}

/// `stem` is "train" or "t10k"; `limit` > 0 keeps the first samples.
absl::StatusOr<ByteSplit> ReadSplit(const std::string& folder, const std::string& stem,
                                    int64_t limit) {
  SP_ASSIGN_OR_RETURN(const std::string images_path, Find(folder, stem + "-images-idx3-ubyte"));
  SP_ASSIGN_OR_RETURN(const std::string labels_path, Find(folder, stem + "-labels-idx1-ubyte"));
  SP_ASSIGN_OR_RETURN(IdxBytes images, ReadIdx(images_path, 3));
  SP_ASSIGN_OR_RETURN(IdxBytes labels, ReadIdx(labels_path, 1));
  if (images.extents[1] != kHeight || images.extents[2] != kWidth) {
    return absl::DataLossError(absl::StrCat(images_path, ": expected images of ", kHeight, " x ",
                                            kWidth, ", found ", images.extents[1], " x ",
                                            images.extents[2]));
  }
  if (images.extents[0] != labels.extents[0]) {
    return absl::DataLossError(absl::StrCat(labels_path, ": expected ", images.extents[0],
                                            " labels, one for each image of ", images_path,
                                            ", found ", labels.extents[0]));
  }
  const auto wrong = std::find_if(labels.values.begin(), labels.values.end(),
                                  [](uint8_t label) { return label >= kNumClasses; });
  if (wrong != labels.values.end()) {
    return absl::DataLossError(absl::StrCat(labels_path, ": expected labels from 0 to ",
                                            kNumClasses - 1, ", found ", int{*wrong},
                                            " for sample ", wrong - labels.values.begin()));
  }
  ByteSplit split{.size = images.extents[0],
                  .pixels = std::move(images.values),
                  .labels = std::move(labels.values)};
  if (limit > 0 && limit < split.size) {
    split.size = limit;
    split.labels.resize(static_cast<size_t>(limit));
    split.pixels.resize(static_cast<size_t>(limit * kHeight * kWidth));
    split.pixels.shrink_to_fit();
  }
  return split;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Dataset>> OpenFashionMnist(const RunConfig& config) {
  const std::string folder = config.data.path.empty() ? kDefaultFolder : config.data.path;
  ByteDataset::Options options{.sample_shape = {1, kHeight, kWidth},
                               .num_classes = kNumClasses,
                               .mean = kMean,
                               .deviation = kDeviation,
                               .train = {},
                               .test = {}};
  SP_ASSIGN_OR_RETURN(options.train, ReadSplit(folder, "train", config.data.limit_train));
  SP_ASSIGN_OR_RETURN(options.test, ReadSplit(folder, "t10k", config.data.limit_test));
  return std::make_unique<ByteDataset>(std::move(options));
}

}  // namespace smartpipe
