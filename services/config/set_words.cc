#include "services/config/set_words.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "services/config/key_table.h"

namespace smartpipe {
namespace {

constexpr size_t kShownBytesMax = 60;

bool IsKeyLetter(char c) { return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '_'; }

// Whether the message holds the key as a whole word, not as a part of a longer key.
bool Names(absl::string_view message, absl::string_view key) {
  for (size_t at = message.find(key); at != absl::string_view::npos;
       at = message.find(key, at + 1)) {
    const size_t end = at + key.size();
    if ((at == 0 || !IsKeyLetter(message[at - 1])) &&
        (end == message.size() || !IsKeyLetter(message[end]))) {
      return true;
    }
  }
  return false;
}

}  // namespace

std::string SetOrigin(const std::vector<std::string>& sets, absl::string_view key,
                      absl::string_view message) {
  std::vector<std::string> seen, words;
  for (auto word = sets.rbegin(); word != sets.rend(); ++word) {
    const size_t equals = word->find('=');
    if (equals == std::string::npos || equals == 0) continue;
    const std::string set_key(absl::StripAsciiWhitespace(word->substr(0, equals)));
    if (std::find(seen.begin(), seen.end(), set_key) != seen.end()) continue;
    seen.push_back(set_key);
    if (set_key != key && (FindKey(set_key) == nullptr || !Names(message, set_key))) continue;
    words.insert(words.begin(),
                 word->size() <= kShownBytesMax
                     ? absl::StrCat("--set ", QuoteToml(*word))
                     : absl::StrCat("--set ", QuoteToml(set_key.substr(0, kShownBytesMax)), "..."));
  }
  if (words.empty()) return "";
  return absl::StrCat(" (from ", absl::StrJoin(words, " and "), ")");
}

}  // namespace smartpipe
