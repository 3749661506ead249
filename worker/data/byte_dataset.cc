#include "worker/data/byte_dataset.h"

#include <cstddef>
#include <utility>

#include "ATen/ops/empty.h"
#include "c10/util/Exception.h"

namespace smartpipe {

ByteDataset::ByteDataset(Options options) : options_(std::move(options)) {
  for (const int64_t extent : options_.sample_shape) image_bytes_ *= static_cast<size_t>(extent);
  for (size_t byte = 0; byte < value_of_.size(); ++byte) {
    value_of_[byte] = (static_cast<float>(byte) / 255.0f - options_.mean) / options_.deviation;
  }
  for (const ByteSplit* split : {&options_.train, &options_.test}) {
    TORCH_CHECK(split->pixels.size() == split->labels.size() * image_bytes_, "a split with ",
                split->labels.size(), " labels has ", split->pixels.size(), " pixels");
  }
}

size_t ByteDataset::ImageOf(const ByteSplit& split, int64_t index) const {
  TORCH_CHECK(index >= 0 && index < split.size, "no sample ", index, " in a split of ", split.size);
  return static_cast<size_t>(index) % split.labels.size();
}

at::Tensor ByteDataset::Images(Split split, absl::Span<const int64_t> indices) const {
  std::vector<int64_t> shape = {static_cast<int64_t>(indices.size())};
  shape.insert(shape.end(), options_.sample_shape.begin(), options_.sample_shape.end());
  at::Tensor images = at::empty(shape, at::kFloat);
  float* out = images.mutable_data_ptr<float>();
  for (const int64_t index : indices) {
    const uint8_t* pixels =
        bytes(split).pixels.data() + ImageOf(bytes(split), index) * image_bytes_;
    for (size_t i = 0; i < image_bytes_; ++i) *out++ = value_of_[pixels[i]];
  }
  return images;
}

at::Tensor ByteDataset::Labels(Split split, absl::Span<const int64_t> indices) const {
  at::Tensor labels = at::empty({static_cast<int64_t>(indices.size())}, at::kLong);
  int64_t* out = labels.mutable_data_ptr<int64_t>();
  for (const int64_t index : indices) *out++ = bytes(split).labels[ImageOf(bytes(split), index)];
  return labels;
}

}  // namespace smartpipe
