// Common main of all googletest programs: prints the seed first, so that every failure can be
// repeated.
#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testutil/seed.h"

namespace smartpipe::testutil {

uint64_t TestSeed() {
  static const uint64_t seed = [] {
    const char* text = std::getenv("SMARTPIPE_TEST_SEED");
    if (text != nullptr && *text != '\0')
      return static_cast<uint64_t>(std::strtoull(text, nullptr, 10));
    return static_cast<uint64_t>(std::random_device{}());
  }();
  return seed;
}

}  // namespace smartpipe::testutil

int main(int argc, char** argv) {
  testing::InitGoogleMock(&argc, argv);
  // Scenario tests then write what they saw into their files (tests/testutil/scenario.h).
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--rewrite") == 0) setenv("SMARTPIPE_REWRITE", "1", 1);
  }
  std::printf("Seed %" PRIu64 " (repeat with SMARTPIPE_TEST_SEED=%" PRIu64 ")\n",
              smartpipe::testutil::TestSeed(), smartpipe::testutil::TestSeed());
  std::fflush(stdout);
  return RUN_ALL_TESTS();
}
