// One accepted event with what it decided: the unit of the durable log and of replay.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/time/time.h"
#include "freeze_service/core/events.h"

namespace smartpipe {

struct EventRecord {
  int64_t sequence = 0;  // 0, 1, 2, ... gapless
  absl::Time now;
  Event event;
  std::vector<Decision> decisions;
};

}  // namespace smartpipe
