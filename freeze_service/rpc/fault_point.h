// Named places between an event and its publication at which tests let the service die.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/statusor.h"

namespace smartpipe {

enum class FaultPoint { kBeforeAppend, kAfterAppend, kAfterPublish };

/// Called at each fault point with the sequence of the event's record; empty = not called.
using FaultHook = std::function<void(FaultPoint, int64_t sequence)>;

/// The hook for "before_append:7", "after_append:7" or "after_publish:7": kills the process, as
/// kill -9 does, at that point of record 7. Empty text gives an empty hook.
/// Errors: INVALID_ARGUMENT for another text.
absl::StatusOr<FaultHook> ParseFaultPoint(const std::string& text);

}  // namespace smartpipe
