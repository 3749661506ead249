// What a program can read off an error, beside the sentence for people.
#pragma once

#include <map>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace smartpipe {

/// Travels as google.rpc.ErrorInfo with the domain "smartpipe".
struct ErrorReason {
  std::string reason;                           // "TOO_LATE": constant, UPPER_SNAKE_CASE
  std::map<std::string, std::string> metadata;  // {"earliest_step", "40"}
  friend bool operator==(const ErrorReason&, const ErrorReason&) = default;
};

/// `status` with the reason; OK stays OK.  Threads: pure.
absl::Status WithReason(absl::Status status, const ErrorReason& reason);
/// Nothing when it carries none.  Threads: pure.
std::optional<ErrorReason> ReasonOf(const absl::Status& status);

}  // namespace smartpipe
