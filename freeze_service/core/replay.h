// Proof that recorded decisions follow from recorded events.
#pragma once

#include <string>

#include "freeze_service/core/coordinator.h"
#include "freeze_service/core/event_record.h"

namespace smartpipe {

/// Applies the record's event, at its time, and compares every field of every decision with the
/// recorded one; NaN equals NaN, and 0.0 differs from -0.0.
/// Output: empty when all are equal, else the first difference: "decision 0 (verdict), frontier:
/// recorded 2, replayed 3"; "the event is refused: ...".
/// Cost: that of Coordinator::Apply.
std::string Replay(const EventRecord& record, Coordinator& coordinator);

}  // namespace smartpipe
