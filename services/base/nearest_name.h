// "Did you mean ...?": the known name that is closest to a mistyped one.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/string_view.h"

namespace smartpipe {

/// Edit distance: insertions, deletions, replacements and swaps of neighbours, each counted 1;
/// letters are compared without case.  Threads: pure.  Cost: O(|a| |b|).
inline int EditDistance(absl::string_view a, absl::string_view b) {
  const size_t width = b.size() + 1;
  std::vector<int> before_last(width), last(width), row(width);
  for (size_t j = 0; j < width; ++j) last[j] = static_cast<int>(j);
  const auto same = [&](size_t i, size_t j) {
    return absl::ascii_tolower(static_cast<unsigned char>(a[i])) ==
           absl::ascii_tolower(static_cast<unsigned char>(b[j]));
  };
  for (size_t i = 1; i <= a.size(); ++i) {
    row[0] = static_cast<int>(i);
    for (size_t j = 1; j < width; ++j) {
      row[j] = std::min({last[j] + 1, row[j - 1] + 1, last[j - 1] + (same(i - 1, j - 1) ? 0 : 1)});
      if (i > 1 && j > 1 && same(i - 1, j - 2) && same(i - 2, j - 1)) {
        row[j] = std::min(row[j], before_last[j - 2] + 1);
      }
    }
    before_last.swap(last);
    last.swap(row);
  }
  return last[b.size()];
}

/// The entry of `names` with the smallest edit distance to `name`, the first of equals; empty if
/// `names` is empty.
inline std::string NearestName(absl::string_view name, const std::vector<std::string>& names) {
  // A name of many thousand letters is nobody's typing mistake; its head is enough.
  name = name.substr(0, 128);
  std::string nearest;
  int least = 0;
  for (const std::string& candidate : names) {
    const int distance = EditDistance(name, candidate);
    if (nearest.empty() || distance < least) {
      nearest = candidate;
      least = distance;
    }
  }
  return nearest;
}

}  // namespace smartpipe
