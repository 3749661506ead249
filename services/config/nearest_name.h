// "Did you mean ...?": the known name that is closest to a mistyped one.
#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace smartpipe {

/// Edit distance: insertions, deletions, replacements and swaps of neighbours, each counted 1;
/// letters are compared without case.  Threads: pure.  Cost: O(|a| |b|).
int EditDistance(absl::string_view a, absl::string_view b);

/// The entry of `names` with the smallest edit distance to `name`, the first of equals; empty if
/// `names` is empty.
std::string NearestName(absl::string_view name, const std::vector<std::string>& names);

}  // namespace smartpipe
