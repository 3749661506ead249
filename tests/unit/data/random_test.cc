// Keyed random numbers: the same everywhere, different for every purpose.
#include <cstdint>
#include <set>
#include <vector>

#include "gtest/gtest.h"
#include "worker/data/keyed_random.h"

namespace smartpipe {
namespace {

TEST(RandomKeyTest, EveryPartOfTheKeyCounts) {
  std::set<uint64_t> keys;
  int num_keys = 0;
  for (const RandomPurpose purpose : {RandomPurpose::kInit, RandomPurpose::kDataOrder}) {
    for (int64_t seed = 0; seed < 4; ++seed) {
      for (int64_t a = -1; a < 4; ++a) {
        for (int64_t b = 0; b < 4; ++b) {
          for (int64_t c = 0; c < 4; ++c, ++num_keys) {
            keys.insert(RandomKey(seed, purpose, a, b, c) & 0xffffffff);
          }
        }
      }
    }
  }
  EXPECT_EQ(keys.size(), static_cast<size_t>(num_keys));
}

TEST(SplitMix64Test, PublishedValues) {
  SplitMix64 random(1234567);
  EXPECT_EQ(random.Next(), 6457827717110365317u);
  EXPECT_EQ(random.Next(), 3203168211198807973u);
  EXPECT_EQ(random.Next(), 9817491932198370423u);
}

TEST(SplitMix64Test, BelowIsUniform) {
  SplitMix64 random(7);
  std::vector<int> counts(6);
  for (int i = 0; i < 60'000; ++i) ++counts[random.Below(6)];
  for (const int count : counts) EXPECT_NEAR(count, 10'000, 400);
  EXPECT_EQ(random.Below(1), 0u);
  EXPECT_LT(random.Below(UINT64_MAX), UINT64_MAX);
}

TEST(KeyedGeneratorTest, SeededWithTheKey) {
  const at::Generator a = KeyedGenerator(1, RandomPurpose::kInit, 2, 3);
  EXPECT_EQ(a.current_seed() & 0xffffffff, RandomKey(1, RandomPurpose::kInit, 2, 3) & 0xffffffff);
}

}  // namespace
}  // namespace smartpipe
