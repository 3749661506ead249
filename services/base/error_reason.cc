#include "services/base/error_reason.h"

#include <vector>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace smartpipe {
namespace {

constexpr absl::string_view kPayload = "smartpipe/reason";
constexpr char kSeparator = '\n';  // neither names nor numbers hold one

}  // namespace

absl::Status WithReason(absl::Status status, const ErrorReason& reason) {
  if (status.ok()) return status;
  std::string text = reason.reason;
  for (const auto& [key, value] : reason.metadata) {
    text += kSeparator;
    absl::StrAppend(&text, key, "=", value);
  }
  status.SetPayload(kPayload, absl::Cord(text));
  return status;
}

std::optional<ErrorReason> ReasonOf(const absl::Status& status) {
  const absl::optional<absl::Cord> payload = status.GetPayload(kPayload);
  if (!payload.has_value()) return std::nullopt;
  const std::vector<std::string> lines = absl::StrSplit(std::string(*payload), kSeparator);
  ErrorReason reason{.reason = lines[0], .metadata = {}};
  for (size_t i = 1; i < lines.size(); ++i) {
    const std::pair<std::string, std::string> entry =
        absl::StrSplit(lines[i], absl::MaxSplits('=', 1));
    reason.metadata.insert(entry);
  }
  return reason;
}

}  // namespace smartpipe
