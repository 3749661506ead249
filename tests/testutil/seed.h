#ifndef SMARTPIPE_TESTS_TESTUTIL_SEED_H_
#define SMARTPIPE_TESTS_TESTUTIL_SEED_H_

#include <cstdint>

namespace smartpipe::testutil {

/// Seed of this test program for everything random in it.
///
/// Output:  the number in the environment variable SMARTPIPE_TEST_SEED, or else a fresh one;
/// printed
///          at the program's start, so that a failure can be repeated with the same draws.
/// Threads: any; the value never changes within a process.
uint64_t TestSeed();

}  // namespace smartpipe::testutil

#endif  // SMARTPIPE_TESTS_TESTUTIL_SEED_H_
