// Seeded draws that are the same on every standard library: no distributions.
#pragma once

#include <cstdint>
#include <random>
#include <vector>

namespace smartpipe::testutil {

class Dice {
 public:
  explicit Dice(uint64_t seed) : engine_(seed) {}
  int64_t Below(int64_t n) { return static_cast<int64_t>(engine_() % static_cast<uint64_t>(n)); }
  bool OneIn(int64_t n) { return Below(n) == 0; }
  double Unit() { return static_cast<double>(Below(1 << 20)) / (1 << 20); }
  template <typename T>
  T OneOf(const std::vector<T>& values) {
    return values[Below(static_cast<int64_t>(values.size()))];
  }

 private:
  std::mt19937_64 engine_;
};

}  // namespace smartpipe::testutil
