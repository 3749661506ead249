#include "freeze_service/rpc/fault_point.h"

#include <csignal>
#include <iterator>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"

namespace smartpipe {

absl::StatusOr<FaultHook> ParseFaultPoint(const std::string& text) {
  static constexpr std::pair<absl::string_view, FaultPoint> kNames[] = {
      {"before_append", FaultPoint::kBeforeAppend},
      {"after_append", FaultPoint::kAfterAppend},
      {"after_publish", FaultPoint::kAfterPublish}};
  if (text.empty()) return FaultHook();
  const std::pair<absl::string_view, absl::string_view> parts =
      absl::StrSplit(text, absl::MaxSplits(':', 1));
  int64_t wanted_sequence = 0;
  for (const auto& [name, wanted] : kNames) {
    if (parts.first != name || !absl::SimpleAtoi(parts.second, &wanted_sequence)) continue;
    return [wanted_point = wanted, wanted_sequence](FaultPoint point, int64_t sequence) {
      if (point == wanted_point && sequence == wanted_sequence) raise(SIGKILL);
    };
  }
  return absl::InvalidArgumentError(absl::StrCat("--die-at is \"", text,
                                                 "\"; it must be before_append, after_append or "
                                                 "after_publish, a colon and a record's number"));
}

}  // namespace smartpipe
