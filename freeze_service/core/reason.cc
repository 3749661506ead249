#include "freeze_service/core/reason.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"

namespace smartpipe {
namespace {

constexpr int kLayersNamed = 4;

}  // namespace

std::string LayerLabel(LayerIndex layer, absl::string_view name) {
  return absl::StrCat("layer ", layer.value(), " \"", name, "\"");
}

std::string LayersLabel(LayerIndex first, LayerIndex end, const std::vector<std::string>& names) {
  const int32_t count = end - first;
  if (count == 1) return LayerLabel(first, names[first.value()]);
  std::string quoted;
  if (count <= kLayersNamed) {
    const auto begin = names.begin() + first.value();
    quoted = absl::StrCat("\"", absl::StrJoin(begin, begin + count, "\", \""), "\"");
  } else {
    quoted = absl::StrCat("\"", names[first.value()], "\" to \"", names[end.value() - 1], "\"");
  }
  return absl::StrCat("layers ", first.value(), "-", end.value() - 1, " (", quoted, ")");
}

std::string Counted(int64_t count, absl::string_view noun) {
  return absl::StrCat(count, " ", noun, count == 1 ? "" : "s");
}

std::string Rounded(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "infinity" : "-infinity";
  return absl::StrFormat("%.3g", value);
}

std::string RoundedBeside(double value, double reference) {
  std::string text = Rounded(value);
  if (value == reference || text != Rounded(reference)) return text;
  return absl::StrFormat("%.9g", value);
}

std::string Milliseconds(double seconds) { return absl::StrFormat("%.1f ms", seconds * 1e3); }

}  // namespace smartpipe
