#include "services/config/run_config.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <set>

#include <toml++/toml.h>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "services/base/limits.h"
#include "services/base/nearest_name.h"
#include "services/config/config_rules.h"
#include "services/config/key_table.h"
#include "services/config/set_words.h"

namespace smartpipe {
namespace {

constexpr size_t kListEntriesMax = 4096;
constexpr size_t kStringBytesMax = 4096;
constexpr size_t kShownBytesMax = 60;
constexpr size_t kProblemsMax = 100;  // more are counted, not listed
constexpr int kNestingMax = 32;
constexpr int kLineDotsMax = 200;

// Text of the user's inside a message: quoted, escaped, short.
std::string Show(absl::string_view text) {
  if (text.size() <= kShownBytesMax) return QuoteToml(text);
  size_t end = kShownBytesMax;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80)
    --end;  // not inside a UTF-8 letter
  return absl::StrCat(QuoteToml(text.substr(0, end)), "...");
}

std::string DescribeNode(const toml::node& node) {
  switch (node.type()) {
    case toml::node_type::string:
      return absl::StrCat("the string ", Show(**node.as_string()));
    case toml::node_type::integer:
      return absl::StrCat("the integer ", **node.as_integer());
    case toml::node_type::floating_point:
      return absl::StrCat("the number ", **node.as_floating_point());
    case toml::node_type::boolean:
      return **node.as_boolean() ? "the boolean true" : "the boolean false";
    case toml::node_type::array:
      return absl::StrCat("a list of ", node.as_array()->size());
    case toml::node_type::table:
      return "a table";
    default:
      return "a date or time";
  }
}

std::vector<std::string> TableNames() {
  std::vector<std::string> names;
  for (const KeySpec& spec : KeyTable()) {
    const size_t dot = spec.key.find('.');
    if (dot == std::string::npos) continue;
    if (names.empty() || names.back() != spec.key.substr(0, dot))
      names.push_back(spec.key.substr(0, dot));
  }
  return names;
}

// The known key nearest to an unknown one. A key that only lacks its table, or stands in a wrong
// one, is found by its own name.
std::string NearestKey(const std::string& key) {
  const std::string leaf = key.substr(key.rfind('.') + 1);
  std::vector<std::string> names;
  for (const KeySpec& spec : KeyTable()) {
    if (spec.key == leaf || absl::EndsWith(spec.key, "." + leaf)) return spec.key;
    names.push_back(spec.key);
  }
  return NearestName(key, names);
}

// What an integer, number, ... key wants, with its range: "an integer, 1 .. 64".
std::string Expected(const KeySpec& spec) {
  const std::string type = TypeName(spec);
  const std::string range = RangeText(spec.range);
  std::string text = absl::StrCat(type == "integer" ? "an " : "a ", type);
  if (const auto* choice = std::get_if<Choice>(&spec.range)) {
    return absl::StrCat("one of ", absl::StrJoin(*choice->names, ", "));
  }
  const bool is_list = absl::StartsWith(type, "list");
  if (!range.empty()) absl::StrAppend(&text, is_list ? ", each " : ", ", range);
  return text;
}

// What the TOML library would recurse into without bound, found before it sees the text: brackets
// in brackets, and keys of thousands of parts. Multi-line strings are refused, too (no key needs
// one): so a line is enough to tell what is inside a string.
std::optional<ConfigProblem> FindTooDeep(const std::string& text) {
  int line = 1, depth = 0, dots = 0;
  char quote = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '\n') {
      ++line;
      dots = 0;
      quote = 0;
    } else if (quote != 0) {
      if (c == '\\' && quote == '"' && i + 1 < text.size() && text[i + 1] != '\n')
        ++i;
      else if (c == quote)
        quote = 0;
    } else if (c == '"' || c == '\'') {
      if (text.compare(i, 3, std::string(3, c)) == 0) {
        return ConfigProblem{
            .line = line,
            .key = "",
            .message = "multi-line strings are not used here; write it on one line"};
      }
      quote = c;
    } else if (c == '#') {
      while (i + 1 < text.size() && text[i + 1] != '\n') ++i;
    } else if (c == '[' || c == '{') {
      ++depth;
    } else if ((c == ']' || c == '}') && depth > 0) {
      --depth;
    } else if (c == '.') {
      ++dots;
    }
    if (depth > kNestingMax || dots > kLineDotsMax) {
      return ConfigProblem{.line = line,
                           .key = "",
                           .message = "nested too deeply; no key needs more than two levels"};
    }
  }
  return std::nullopt;
}

// Reads the value of one key out of a node. Returns the complaint; empty = stored.
class ValueReader {
 public:
  ValueReader(const KeySpec& spec, const toml::node& node) : spec_(spec), node_(node) {}

  std::string ReadInto(RunConfig& config) {
    return std::visit([&](auto field) { return Read(*field(config)); }, spec_.field);
  }

 private:
  std::string WrongType() const {
    std::string message = absl::StrCat("expected ", Expected(spec_), ", got ", DescribeNode(node_));
    if (node_.is_string() && !std::holds_alternative<Choice>(spec_.range)) {
      const absl::string_view text = **node_.as_string();
      if (!text.empty() && text.find_first_not_of("0123456789.+-e_") == absl::string_view::npos) {
        absl::StrAppend(&message, "; write it without quotes");
      }
    } else if (node_.is_floating_point() && TypeName(spec_) == "integer") {
      const double value = **node_.as_floating_point();
      if (std::fabs(value) < 1e15 && value == std::floor(value)) {
        absl::StrAppend(&message, "; write ", static_cast<int64_t>(value));
      }
    }
    return message;
  }

  std::string OutOfRange(const std::string& value) const {
    return absl::StrCat(value, " is out of range, expected ", Expected(spec_));
  }

  std::string Read(bool& out) const {
    const auto* value = node_.as_boolean();
    if (value == nullptr) return WrongType();
    out = **value;
    return "";
  }

  std::string Read(int64_t& out) const {
    const auto* value = node_.as_integer();
    if (value == nullptr) return WrongType();
    const IntRange& range = std::get<IntRange>(spec_.range);
    if (**value < range.min || **value > range.max) return OutOfRange(absl::StrCat(**value));
    out = **value;
    return "";
  }

  std::string Read(double& out) const {
    double value = 0;
    if (const auto* integer = node_.as_integer()) {
      value = static_cast<double>(**integer);
    } else if (const auto* real = node_.as_floating_point()) {
      value = **real;
    } else {
      return WrongType();
    }
    if (!std::isfinite(value))
      return absl::StrCat(value, " is not a finite number, expected ", Expected(spec_));
    const RealRange& range = std::get<RealRange>(spec_.range);
    const bool low = range.min_open ? value <= range.min : value < range.min;
    const bool high = range.max_open ? value >= range.max : value > range.max;
    if (low || high) return OutOfRange(absl::StrCat(value));
    out = value;
    return "";
  }

  std::string Read(std::string& out) const {
    const auto* value = node_.as_string();
    if (value == nullptr) return WrongType();
    const std::string& text = **value;
    if (const auto* choice = std::get_if<Choice>(&spec_.range)) {
      const std::vector<std::string>& names = *choice->names;
      if (std::find(names.begin(), names.end(), text) == names.end()) {
        return absl::StrCat("unknown value ", Show(text), ": did you mean \"",
                            NearestName(text, names), "\"? (", absl::StrJoin(names, ", "), ")");
      }
    }
    if (text.size() > kStringBytesMax) {
      return absl::StrCat("string of ", text.size(), " bytes, at most ", kStringBytesMax,
                          " are allowed");
    }
    if (std::any_of(text.begin(), text.end(),
                    [](unsigned char c) { return c < 0x20 || c == 0x7f; })) {
      return absl::StrCat(Show(text), " holds a control character; remove it");
    }
    out = text;
    return "";
  }

  // The integers of a list; complaint empty = all fit.
  std::string ReadInts(const toml::array& array, std::vector<int64_t>& out) const {
    const IntRange& range = std::get<IntRange>(spec_.range);
    for (const toml::node& entry : array) {
      const auto* value = entry.as_integer();
      if (value == nullptr)
        return absl::StrCat("expected ", Expected(spec_), ", got an entry that is ",
                            DescribeNode(entry));
      if (**value < range.min || **value > range.max)
        return OutOfRange(absl::StrCat("entry ", **value));
      out.push_back(**value);
    }
    return "";
  }

  std::string Read(IntList& out) const {
    const toml::array* array = node_.as_array();
    if (array == nullptr) return WrongType();
    if (array->size() > kListEntriesMax) return TooLong(array->size());
    IntList values;
    std::string complaint = ReadInts(*array, values);
    if (complaint.empty()) out = std::move(values);
    return complaint;
  }

  std::string Read(PairList& out) const {
    const toml::array* array = node_.as_array();
    if (array == nullptr) return WrongType();
    if (array->size() > kListEntriesMax) return TooLong(array->size());
    PairList pairs;
    for (const toml::node& entry : *array) {
      const toml::array* pair = entry.as_array();
      if (pair == nullptr || pair->size() != 2) {
        return absl::StrCat(
            "expected a list of [step, frontier] like [[100, 1], [200, 3]], got an entry that is ",
            DescribeNode(entry));
      }
      std::vector<int64_t> values;
      if (std::string complaint = ReadInts(*pair, values); !complaint.empty()) return complaint;
      if (values[1] >= limits::kLayersMax) {
        return absl::StrCat("frontier ", values[1], " is out of range, expected 0 .. ",
                            limits::kLayersMax - 1);
      }
      pairs.emplace_back(values[0], values[1]);
    }
    out = std::move(pairs);
    return "";
  }

  static std::string TooLong(size_t size) {
    return absl::StrCat("list of ", size, " entries, at most ", kListEntriesMax, " are allowed");
  }

  const KeySpec& spec_;
  const toml::node& node_;
};

// Reads a text and --set words into a config and collects what is wrong with them.
class ConfigReader {
 public:
  void ReadText(const std::string& text) {
    if (text.size() > static_cast<size_t>(limits::kConfigBytesMax)) {
      Report(0, "",
             absl::StrCat("the config has ", text.size(), " bytes, at most ",
                          limits::kConfigBytesMax, " are allowed; is it the right file?"));
      return;
    }
    if (const auto too_deep = FindTooDeep(text)) {
      syntax_ok_ = false;
      problems_.push_back(*too_deep);
      return;
    }
    try {
      const toml::table root = toml::parse(text);
      for (const auto& [key, node] : root) ReadTopLevel(std::string(key.str()), LineOf(key), node);
    } catch (const toml::parse_error& error) {
      syntax_ok_ = false;
      Report(static_cast<int>(error.source().begin.line), "",
             absl::StrCat("not valid TOML: ", std::string(error.description())));
    }
  }

  void ReadSet(const std::string& word) {
    sets_.push_back(word);
    const size_t equals = word.find('=');
    if (equals == std::string::npos || equals == 0) {
      Report(0, "",
             absl::StrCat("--set ", Show(word), " must be table.key=value, like train.epochs=3"));
      return;
    }
    const std::string key(absl::StripAsciiWhitespace(word.substr(0, equals)));
    const std::string value(absl::StripAsciiWhitespace(word.substr(equals + 1)));
    suffix_ = absl::StrCat(" (from --set ", Show(word), ")");
    if (value.size() > static_cast<size_t>(limits::kConfigBytesMax)) {
      Report(0, key, "the value is too long");
    } else if (const auto too_deep = FindTooDeep(value)) {
      Report(0, key, too_deep->message);
    } else if (FindKey(key) == nullptr) {
      const std::vector<std::string> tables = TableNames();
      const bool is_table = std::find(tables.begin(), tables.end(), key) != tables.end();
      Report(
          0, key,
          is_table ? "is a table; set one of its keys, like " + FirstKeyOf(key) : UnknownKey(key));
    } else {
      ReadSetValue(key, value);
    }
    suffix_.clear();
  }

  // Only when all of the text could be read: else the rules would speak of defaults that nobody
  // chose.
  void CheckCombinations() {
    if (!syntax_ok_) return;
    CheckRules(
        config_, [&](absl::string_view key) { return refused_.count(std::string(key)) == 0; },
        [&](const std::string& key, const std::string& message) {
          const auto line = lines_.find(key);
          Report(line == lines_.end() ? 0 : line->second, key,
                 message + SetOrigin(sets_, key, message));
        });
  }

  // In the order of lines; those without a line last.
  std::vector<ConfigProblem> TakeProblems() {
    std::stable_sort(
        problems_.begin(), problems_.end(), [](const ConfigProblem& a, const ConfigProblem& b) {
          return (a.line == 0 ? INT32_MAX : a.line) < (b.line == 0 ? INT32_MAX : b.line);
        });
    if (problems_.size() > kProblemsMax) {
      const size_t more = problems_.size() - kProblemsMax;
      problems_.resize(kProblemsMax);
      problems_.push_back(
          {.line = 0, .key = "", .message = absl::StrCat("and ", more, " more problems")});
    }
    return std::move(problems_);
  }

  const RunConfig& config() const { return config_; }

 private:
  static int LineOf(const toml::key& key) { return static_cast<int>(key.source().begin.line); }

  static std::string FirstKeyOf(const std::string& table) {
    for (const KeySpec& spec : KeyTable()) {
      if (absl::StartsWith(spec.key, table + ".")) return spec.key;
    }
    return "";
  }

  static std::string UnknownKey(const std::string& key) {
    return absl::StrCat("unknown key ", Show(key), ": did you mean \"", NearestKey(key), "\"?");
  }

  void Report(int line, const std::string& key, const std::string& message) {
    std::string shown = key;
    if (!shown.empty() && FindKey(shown) == nullptr) {
      const std::string quoted = Show(shown);
      shown = quoted.size() == shown.size() + 2
                  ? shown
                  : quoted;  // as it is, unless it had to be escaped or cut
    }
    problems_.push_back({.line = line, .key = shown, .message = message + suffix_});
  }

  void ReadTopLevel(const std::string& key, int line, const toml::node& node) {
    const std::vector<std::string> tables = TableNames();
    const bool known_table = std::find(tables.begin(), tables.end(), key) != tables.end();
    if (known_table) {
      const toml::table* table = node.as_table();
      if (table == nullptr) {
        Report(line, key,
               absl::StrCat("expected a table, written [", key, "], got ", DescribeNode(node)));
        return;
      }
      for (const auto& [leaf, value] : *table) {
        ReadKey(absl::StrCat(key, ".", std::string(leaf.str())), LineOf(leaf), value);
      }
    } else if (node.is_table() && FindKey(key) == nullptr) {
      Report(line, key,
             absl::StrCat("unknown table [", key.size() > kShownBytesMax ? "..." : key,
                          "]: did you mean [", NearestName(key, tables), "]?"));
    } else {
      ReadKey(key, line, node);
    }
  }

  void ReadKey(const std::string& key, int line, const toml::node& node) {
    const KeySpec* spec = FindKey(key);
    if (spec == nullptr) {
      // Names are compared for what is shown only.
      Report(line, key, problems_.size() < kProblemsMax ? UnknownKey(key) : "unknown key");
      return;
    }
    lines_[key] = line;
    Store(*spec, line, node);
  }

  void Store(const KeySpec& spec, int line, const toml::node& node) {
    const std::string complaint = ValueReader(spec, node).ReadInto(config_);
    if (complaint.empty()) return;
    refused_.insert(spec.key);
    Report(line, spec.key, complaint);
  }

  void ReadSetValue(const std::string& key, const std::string& value) {
    const KeySpec& spec = *FindKey(key);
    lines_.erase(key);
    // A TOML value; whatever is none, and does not begin like one, is a string.
    std::string complaint;
    for (const std::string& text : {value, QuoteToml(value)}) {
      try {
        const toml::table root = toml::parse("x = " + text);
        if (root.size() == 1) return Store(spec, 0, *root.get("x"));
      } catch (const toml::parse_error& error) {
        if (complaint.empty()) complaint = std::string(error.description());
      }
      if (!value.empty() && absl::StrContains("[{\"'", value.substr(0, 1))) break;
      const bool number = TypeName(spec) == "integer" || TypeName(spec) == "number";
      if (number && !value.empty() && absl::StrContains("+-.0123456789", value.substr(0, 1))) break;
    }
    refused_.insert(key);
    Report(
        0, key,
        absl::StrCat("not a TOML value: ", complaint.empty() ? "more than one value" : complaint));
  }

  RunConfig config_;
  bool syntax_ok_ = true;
  std::string suffix_;  // names the --set word while one is read
  std::vector<std::string> sets_;
  std::map<std::string, int> lines_;  // key -> line, for keys whose value is the text's
  std::set<std::string> refused_;     // keys whose own value was refused
  std::vector<ConfigProblem> problems_;
};

}  // namespace

std::vector<ConfigProblem> CheckRunConfig(const std::string& toml,
                                          const std::vector<std::string>& sets, RunConfig* config) {
  ConfigReader reader;
  reader.ReadText(toml);
  for (const std::string& word : sets) reader.ReadSet(word);
  reader.CheckCombinations();
  if (config != nullptr) *config = reader.config();
  return reader.TakeProblems();
}

absl::StatusOr<RunConfig> ParseRunConfig(const std::string& toml, const std::string& source,
                                         const std::vector<std::string>& sets) {
  RunConfig config;
  const std::vector<ConfigProblem> problems = CheckRunConfig(toml, sets, &config);
  if (problems.empty()) return config;
  return absl::InvalidArgumentError(
      absl::StrJoin(problems, "\n", [&](std::string* out, const ConfigProblem& problem) {
        absl::StrAppend(out, FormatConfigProblem(problem, source));
      }));
}

std::string FormatConfigProblem(const ConfigProblem& problem, const std::string& source) {
  std::string out = source;
  if (problem.line > 0) absl::StrAppend(&out, ":", problem.line);
  if (!problem.key.empty()) absl::StrAppend(&out, ": ", problem.key);
  return absl::StrCat(out, ": ", problem.message);
}

}  // namespace smartpipe
