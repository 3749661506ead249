#include "cli/option_check.h"

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "services/base/nearest_name.h"

namespace smartpipe {

absl::Status CheckOption(absl::string_view option, int64_t value, int64_t least, int64_t most,
                         absl::string_view why) {
  if (least <= value && value <= most) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(option, " is ", value, ", not in ", least, "..", most, why));
}

absl::Status CheckWord(absl::string_view option, const std::string& word,
                       const std::vector<std::string>& known) {
  if (absl::c_linear_search(known, word)) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(option, " is \"", word, "\", not one of ",
                                                 absl::StrJoin(known, ", "), "; did you mean \"",
                                                 NearestName(word, known), "\"?"));
}

}  // namespace smartpipe
