// A dataset whose pixels stay in memory as bytes and become floats one micro-batch at a time.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "worker/data/dataset.h"

namespace smartpipe {

/// One split: `pixels` holds images of [C, H, W] bytes one after the other, `labels` one class
/// each. Sample i of [0, size) is image i modulo the number of images: a generated split may
/// repeat.
struct ByteSplit {
  int64_t size = 0;
  std::vector<uint8_t> pixels, labels;
};

/// A byte p of any channel becomes (p / 255 - mean) / deviation, through a table of 256 floats.
class ByteDataset final : public Dataset {
 public:
  struct Options {
    std::vector<int64_t> sample_shape;  // [C, H, W]
    int64_t num_classes = 0;
    float mean = 0, deviation = 1;
    ByteSplit train, test;
  };
  explicit ByteDataset(Options options);

  int64_t size(Split split) const override { return bytes(split).size; }
  int64_t num_classes() const override { return options_.num_classes; }
  std::vector<int64_t> sample_shape() const override { return options_.sample_shape; }
  at::Tensor Images(Split split, absl::Span<const int64_t> indices) const override;
  at::Tensor Labels(Split split, absl::Span<const int64_t> indices) const override;

 private:
  const ByteSplit& bytes(Split split) const {
    return split == Split::kTrain ? options_.train : options_.test;
  }
  size_t ImageOf(const ByteSplit& split, int64_t index) const;

  const Options options_;
  size_t image_bytes_ = 1;
  std::array<float, 256> value_of_;
};

}  // namespace smartpipe
