// Checks of what stands on the command line, for commands that need more than CLI11's own.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace smartpipe {

/// INVALID_ARGUMENT "--stages is 7, not in 1..6<why>" unless least <= value <= most.
absl::Status CheckOption(absl::string_view option, int64_t value, int64_t least, int64_t most,
                         absl::string_view why = "");

/// INVALID_ARGUMENT with all known words, and the nearest one, unless `word` is one of them.
absl::Status CheckWord(absl::string_view option, const std::string& word,
                       const std::vector<std::string>& known);

}  // namespace smartpipe
