// The deterministic sampler: which samples a micro-batch of a step holds, the same in every
// process.
#pragma once

#include <cstdint>
#include <vector>

#include "services/base/ids.h"

namespace smartpipe {

/// A keyed permutation of the training set per epoch; the last partial batch is dropped.
///
/// Sample ids depend on (seed, epoch, step, micro-batch) alone, never on rank or call order.  Cost:
/// one shuffle per epoch, cached.  Threads: one.
class Sampler {
 public:
  /// num_samples >= batch_size; batch_size a multiple of num_microbatches.
  Sampler(int64_t seed, int64_t num_samples, int64_t batch_size, int64_t num_microbatches);
  int64_t steps_per_epoch() const { return num_samples_ / batch_size_; }
  /// batch_size / num_microbatches indices into the training set.
  std::vector<int64_t> Microbatch(Step step, MicrobatchIndex microbatch);

 private:
  const int64_t seed_, num_samples_, batch_size_, num_microbatches_;
  int64_t cached_epoch_ = -1;
  std::vector<int64_t> order_;
};

}  // namespace smartpipe
