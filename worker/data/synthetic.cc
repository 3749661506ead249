#include <algorithm>
#include <cstddef>
#include <memory>
#include <utility>

#include "worker/data/byte_dataset.h"
#include "worker/data/datasets.h"
#include "worker/data/keyed_random.h"

namespace smartpipe {
namespace {

constexpr int64_t kChannels = 3, kHeight = 32, kWidth = 32, kNumClasses = 10;
constexpr size_t kImageBytes = kChannels * kHeight * kWidth;
constexpr int64_t kTrainSamples = 4096, kTestSamples = 512, kImagesMax = 4096;
// What the second part of a key means, beside the samples of the two splits.
constexpr int64_t kKeyTrain = 0, kKeyTest = 1, kKeyPattern = 2;

static_assert(kImageBytes % 8 == 0, "images are drawn eight bytes at a time");

void DrawBytes(uint64_t key, uint8_t* out) {
  SplitMix64 random(key);
  for (size_t i = 0; i < kImageBytes; i += 8) {
    uint64_t draw = random.Next();
    for (size_t byte = 0; byte < 8; ++byte, draw >>= 8) out[i + byte] = static_cast<uint8_t>(draw);
  }
}

ByteSplit MakeSplit(int64_t seed, int64_t key, int64_t size, const std::vector<uint8_t>& patterns) {
  ByteSplit split{.size = size, .pixels = {}, .labels = {}};
  const auto num_images = static_cast<size_t>(std::min(size, kImagesMax));
  split.labels.resize(num_images);
  split.pixels.resize(num_images * kImageBytes);
  for (size_t image = 0; image < num_images; ++image) {
    const uint64_t sample_key =
        RandomKey(seed, RandomPurpose::kSynthetic, static_cast<int64_t>(image), key);
    split.labels[image] = static_cast<uint8_t>(sample_key % kNumClasses);
    uint8_t* pixels = split.pixels.data() + image * kImageBytes;
    const uint8_t* pattern = patterns.data() + split.labels[image] * kImageBytes;
    DrawBytes(sample_key, pixels);
    // One part pattern, three parts noise: learnable, but not in a few steps.
    for (size_t i = 0; i < kImageBytes; ++i) {
      pixels[i] = static_cast<uint8_t>((3 * pixels[i] + pattern[i]) / 4);
    }
  }
  return split;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Dataset>> OpenSynthetic(const RunConfig& config) {
  const int64_t seed = config.train.seed;
  std::vector<uint8_t> patterns(kNumClasses * kImageBytes);
  for (int64_t label = 0; label < kNumClasses; ++label) {
    DrawBytes(RandomKey(seed, RandomPurpose::kSynthetic, label, kKeyPattern),
              patterns.data() + static_cast<size_t>(label) * kImageBytes);
  }
  const auto limited = [](int64_t limit, int64_t size) { return limit > 0 ? limit : size; };
  ByteDataset::Options options{.sample_shape = {kChannels, kHeight, kWidth},
                               .num_classes = kNumClasses,
                               .mean = 0.5f,
                               .deviation = 0.25f,
                               .train = {},
                               .test = {}};
  options.train =
      MakeSplit(seed, kKeyTrain, limited(config.data.limit_train, kTrainSamples), patterns);
  options.test = MakeSplit(seed, kKeyTest, limited(config.data.limit_test, kTestSamples), patterns);
  return std::make_unique<ByteDataset>(std::move(options));
}

}  // namespace smartpipe
