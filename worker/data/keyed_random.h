// Random numbers keyed by what they are for, never by rank or call order. Nothing here or anywhere
// in the worker draws from Torch's default generator.
#pragma once

#include <cstdint>

#include "ATen/core/Generator.h"

namespace smartpipe {

enum class RandomPurpose : uint64_t {
  kInit = 1,
  kDataOrder = 2,
  kAugmentation = 3,
  kDropout = 4,
  kSynthetic = 5
};

/// A well-mixed 64-bit key of (seed, purpose, a, b, c), e.g. (seed, kInit, layer, parameter, 0).
/// Threads: pure.
uint64_t RandomKey(int64_t seed, RandomPurpose purpose, int64_t a, int64_t b = 0, int64_t c = 0);

/// A fresh CPU generator seeded with the key. (Torch's generator keeps the low 32 bits of a seed.)
at::Generator KeyedGenerator(int64_t seed, RandomPurpose purpose, int64_t a, int64_t b = 0,
                             int64_t c = 0);

/// A small stream of 64-bit numbers whose bytes no library version can change.
///
/// Source: SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
/// Threads: one.
class SplitMix64 {
 public:
  explicit SplitMix64(uint64_t key) : state_(key) {}
  uint64_t Next();
  /// Uniform in [0, bound), without bias; bound > 0.
  uint64_t Below(uint64_t bound);

 private:
  uint64_t state_;
};

}  // namespace smartpipe
