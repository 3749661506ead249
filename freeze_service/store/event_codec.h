// Events, decisions and snapshots as bytes, without loss: what the durable log keeps.
//
// A version byte, a byte for the kind, then the fields in the order of their declaration: integers
// and doubles little-endian in their full width (a double keeps its bits: NaN, infinities, -0),
// strings and lists with their length before them, an optional with a byte. No names, no padding:
// a field that is added, removed or moved needs a new version here; the codec does not compile
// until it is told of it.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "freeze_service/core/coordinator_state.h"
#include "freeze_service/core/events.h"

namespace smartpipe {

/// Threads: pure.  Cost: linear; about 150 bytes per layer of a report.
std::string EncodeEvent(const Event& event);
std::string EncodeDecisions(const std::vector<Decision>& decisions);
std::string EncodeState(const CoordinatorState& state);

/// Errors: DATA_LOSS for bytes that the encoder does not write, FAILED_PRECONDITION for another
/// version.
absl::StatusOr<Event> DecodeEvent(absl::string_view bytes);
absl::StatusOr<std::vector<Decision>> DecodeDecisions(absl::string_view bytes);
absl::StatusOr<CoordinatorState> DecodeState(absl::string_view bytes);

}  // namespace smartpipe
