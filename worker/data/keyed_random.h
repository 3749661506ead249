// Random numbers keyed by what they are for, never by rank or call order. Nothing here or anywhere in the worker draws
// from Torch's default generator.
#pragma once

#include <cstdint>

#include "ATen/core/Generator.h"

namespace smartpipe {

enum class RandomPurpose : uint64_t { kInit = 1, kDataOrder = 2, kAugmentation = 3, kDropout = 4, kSynthetic = 5 };

/// A well-mixed 64-bit key of (seed, purpose, a, b, c), e.g. (seed, kInit, layer, parameter, 0).  Threads: pure.
uint64_t RandomKey(int64_t seed, RandomPurpose purpose, int64_t a, int64_t b = 0, int64_t c = 0);

/// A fresh CPU generator seeded with the key.
at::Generator KeyedGenerator(int64_t seed, RandomPurpose purpose, int64_t a, int64_t b = 0, int64_t c = 0);

}  // namespace smartpipe
