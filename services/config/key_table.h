// The one table of config keys. Parsing, range checks, canonical TOML, `smartpipe config keys` and
// "did you mean" all read it.  Internal to services/config.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/string_view.h"
#include "services/config/run_config.h"

namespace smartpipe {

using IntList = std::vector<int64_t>;
using PairList = std::vector<std::pair<int64_t, int64_t>>;

/// Where a key's value lives in the struct; the pointer's type is the key's type.
using ConfigField =
    std::variant<bool* (*)(RunConfig&), int64_t* (*)(RunConfig&), double* (*)(RunConfig&),
                 std::string* (*)(RunConfig&), IntList* (*)(RunConfig&), PairList* (*)(RunConfig&)>;

/// min <= value <= max; for a list, each entry's range.
struct IntRange {
  int64_t min = 0;
  int64_t max = INT64_MAX;
};
/// Bounds belong to the range unless open; the value must be finite.
struct RealRange {
  double min = 0;
  double max = 0;
  bool min_open = false;
  bool max_open = false;
};
/// One of the names.
struct Choice {
  const std::vector<std::string>* names;
};
struct AnyValue {};
using ConfigRange = std::variant<AnyValue, IntRange, RealRange, Choice>;

struct KeySpec {
  std::string key;  // "train.epochs", or "decision_timeout_s" outside any table
  ConfigField field;
  ConfigRange range;
  std::string doc;
};

/// All keys, grouped by table, in the order of the canonical TOML.  Threads: any.
const std::vector<KeySpec>& KeyTable();

/// The row of `key`, or null.
const KeySpec* FindKey(absl::string_view key);

/// "integer", "number", "string", "boolean", "list of integers", "list of [step, frontier]".
std::string TypeName(const KeySpec& spec);

/// "1 .. 64", "> 0, <= 1", "sgd | adamw"; empty when any value will do.
std::string RangeText(const ConfigRange& range);

/// The key's value in `config` as TOML.
std::string ValueToToml(const KeySpec& spec, const RunConfig& config);

/// `text` as a TOML basic string, quoted and escaped.
std::string QuoteToml(absl::string_view text);

/// Number of layers of a known model; 0 for a name that is not known.
int64_t NumModelLayers(absl::string_view model);

}  // namespace smartpipe
