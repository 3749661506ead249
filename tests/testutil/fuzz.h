// What the fuzz tests share: seeded draws and edits of texts.
#pragma once

#include <cstddef>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/testutil/seed.h"

namespace smartpipe::testutil {

class FuzzTest : public testing::Test {
 protected:
  /// 0..n-1.
  size_t Below(size_t n) { return std::uniform_int_distribution<size_t>(0, n - 1)(random_); }

  struct Edits {
    size_t edits_max;                        // at least one
    size_t copy_max;                         // a copied piece is shorter than this
    const std::vector<std::string>& tokens;  // are put in
  };
  /// `text` with some bytes changed, taken out, put in, copied or cut off.
  std::string Edited(std::string text, const Edits& edits) {
    for (size_t left = 1 + Below(edits.edits_max); left > 0 && !text.empty(); --left) {
      const size_t at = Below(text.size());
      switch (Below(5)) {
        case 0:
          text[at] = static_cast<char>(Below(256));
          break;
        case 1:
          text.erase(at, 1 + Below(8));
          break;
        case 2:
          text.insert(at, edits.tokens[Below(edits.tokens.size())]);
          break;
        case 3:
          text.insert(at, text.substr(Below(text.size()), Below(edits.copy_max)));
          break;
        default:
          text.resize(at);
          break;
      }
    }
    return text;
  }

  std::mt19937_64 random_{TestSeed()};
};

}  // namespace smartpipe::testutil
