// Pieces of the sentences that people read: layers, numbers and counts, always written the same
// way.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "services/base/ids.h"

namespace smartpipe {

/// 'layer 2 "block2"'.
std::string LayerLabel(LayerIndex layer, absl::string_view name);
/// 'layer 2 "block2"' or 'layers 0-1 ("stem", "block1")'; from five layers on only the first and
/// the last are named.
std::string LayersLabel(LayerIndex first, LayerIndex end, const std::vector<std::string>& names);

/// "1 interval", "2 intervals".
std::string Counted(int64_t count, absl::string_view noun);
/// Three significant digits: "0.0831", "12", "NaN", "infinity".
std::string Rounded(double value);
/// Like Rounded, with more digits where that would read the same as `reference` but is another
/// number.
std::string RoundedBeside(double value, double reference);
/// "33.0 ms".
std::string Milliseconds(double seconds);

}  // namespace smartpipe
