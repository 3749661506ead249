#include "worker/data/keyed_random.h"

#include "ATen/CPUGeneratorImpl.h"

namespace smartpipe {
namespace {

constexpr uint64_t kGoldenGamma = 0x9e3779b97f4a7c15;

uint64_t Mix(uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

}  // namespace

uint64_t SplitMix64::Next() { return Mix(state_ += kGoldenGamma); }

uint64_t SplitMix64::Below(uint64_t bound) {
  // The high half of a 128-bit product is the draw; products whose low half falls into the partial
  // last range are drawn again (Lemire 2019).
  const uint64_t num_biased = -bound % bound;
  while (true) {
    const auto product = static_cast<unsigned __int128>(Next()) * bound;
    if (static_cast<uint64_t>(product) >= num_biased) return static_cast<uint64_t>(product >> 64);
  }
}

uint64_t RandomKey(int64_t seed, RandomPurpose purpose, int64_t a, int64_t b, int64_t c) {
  uint64_t key = 0;
  for (const uint64_t part :
       {static_cast<uint64_t>(seed), static_cast<uint64_t>(purpose), static_cast<uint64_t>(a),
        static_cast<uint64_t>(b), static_cast<uint64_t>(c)}) {
    key = Mix((key ^ Mix(part + kGoldenGamma)) + kGoldenGamma);
  }
  return key;
}

at::Generator KeyedGenerator(int64_t seed, RandomPurpose purpose, int64_t a, int64_t b, int64_t c) {
  return at::detail::createCPUGenerator(RandomKey(seed, purpose, a, b, c));
}

}  // namespace smartpipe
