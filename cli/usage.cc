#include "cli/usage.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "services/base/nearest_name.h"
#include "services/config/run_config.h"

namespace smartpipe {
namespace {

// "--stages" -> "pipeline.stages", "--freeze.tau" -> "freeze.tau"; empty = no key has this name.
std::string KeyOfOption(absl::string_view option) {
  const std::string name = absl::StrReplaceAll(option.substr(2), {{"-", "_"}});
  for (const ConfigKey& key : ConfigKeys()) {
    if (key.key == name || absl::EndsWith(key.key, "." + name)) return key.key;
  }
  return "";
}

// Index of the first word that is an option, but none of `options`.
size_t FindUnknown(const std::vector<std::string>& words, const std::vector<std::string>& options) {
  const auto unknown = std::find_if(words.begin(), words.end(), [&](const std::string& word) {
    return absl::StartsWith(word, "--") && word.size() > 2 &&
           std::find(options.begin(), options.end(), word.substr(0, word.find('='))) ==
               options.end();
  });
  return static_cast<size_t>(unknown - words.begin());
}

}  // namespace

std::string LikelyName(absl::string_view name, const std::vector<std::string>& names) {
  const std::string nearest = NearestName(name, names);
  const size_t longer = std::max(name.size(), nearest.size());
  if (nearest.empty() || name.size() > 128) return "";
  return 3 * static_cast<size_t>(EditDistance(name, nearest)) <= longer ? nearest : "";
}

std::string UnknownCommandText(absl::string_view name, const std::vector<std::string>& commands) {
  const std::string likely = LikelyName(name, commands);
  return absl::StrCat("unknown command \"", name.substr(0, 60), "\"",
                      likely.empty()
                          ? absl::StrCat("; the commands are ", absl::StrJoin(commands, ", "))
                          : absl::StrCat(": did you mean \"", likely, "\"?"),
                      "\n`smartpipe --help` explains them.");
}

std::string UnknownOption(const std::vector<std::string>& words,
                          const std::vector<std::string>& options) {
  const size_t at = FindUnknown(words, options);
  return at == words.size() ? "" : words[at].substr(0, words[at].find('='));
}

std::string OptionHint(const std::vector<std::string>& words,
                       const std::vector<std::string>& options, bool takes_set) {
  const size_t at = FindUnknown(words, options);
  if (at == words.size()) return "";
  const size_t equals = words[at].find('=');
  const std::string option = words[at].substr(0, equals);
  const std::string key = takes_set ? KeyOfOption(option) : "";
  if (key.empty()) {
    const std::string likely = LikelyName(option, options);
    return likely.empty() ? "" : absl::StrCat("did you mean ", likely, "?");
  }
  std::string value = equals == std::string::npos ? "" : words[at].substr(equals + 1);
  if (equals == std::string::npos && at + 1 < words.size() &&
      !absl::StartsWith(words[at + 1], "-")) {
    value = words[at + 1];
  }
  return absl::StrCat("did you mean --set ", key, "=", value.empty() ? "VALUE" : value, "?");
}

}  // namespace smartpipe
