#include "worker/data/sampler.h"

#include <cstddef>
#include <numeric>
#include <utility>

#include "c10/util/Exception.h"
#include "worker/data/keyed_random.h"

namespace smartpipe {

Sampler::Sampler(int64_t seed, int64_t num_samples, int64_t batch_size, int64_t num_microbatches)
    : seed_(seed),
      num_samples_(num_samples),
      batch_size_(batch_size),
      num_microbatches_(num_microbatches) {
  TORCH_CHECK(num_microbatches > 0 && batch_size > 0 && batch_size % num_microbatches == 0,
              "batch_size ", batch_size, " is not a multiple of microbatches ", num_microbatches);
  TORCH_CHECK(num_samples >= batch_size, "a training set of ", num_samples,
              " samples has no batch of ", batch_size);
}

std::vector<int64_t> Sampler::Microbatch(Step step, MicrobatchIndex microbatch) {
  TORCH_CHECK(
      step.value() >= 0 && microbatch.value() >= 0 && microbatch.value() < num_microbatches_,
      "no micro-batch ", microbatch.value(), " in step ", step.value());
  const int64_t epoch = step.value() / steps_per_epoch();
  if (epoch != cached_epoch_) {
    // Fisher-Yates from the identity, so that an epoch's order does not depend on earlier ones.
    order_.resize(static_cast<size_t>(num_samples_));
    std::iota(order_.begin(), order_.end(), int64_t{0});
    SplitMix64 random(RandomKey(seed_, RandomPurpose::kDataOrder, epoch));
    for (size_t i = order_.size(); i > 1; --i) std::swap(order_[i - 1], order_[random.Below(i)]);
    cached_epoch_ = epoch;
  }
  const int64_t size = batch_size_ / num_microbatches_;
  const int64_t batch_begin = step.value() % steps_per_epoch() * batch_size_;
  const auto begin = order_.begin() + batch_begin + microbatch.value() * size;
  return {begin, begin + size};
}

}  // namespace smartpipe
