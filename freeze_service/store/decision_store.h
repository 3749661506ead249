// Where events and decisions go before anyone hears of them.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "freeze_service/core/events.h"

namespace smartpipe {

/// One accepted event with what it decided.
struct DecisionRecord {
  int64_t sequence = 0;  // 0, 1, 2, ... gapless
  absl::Time now;
  Event event;
  std::vector<Decision> decisions;
};

/// Threads: calls are serialised by the caller.
class DecisionStore {
 public:
  virtual ~DecisionStore() = default;
  /// Durable (as far as this store is) when it returns OK; after an error nothing was appended and
  /// the service must stop.
  virtual absl::Status Append(const DecisionRecord& record) = 0;
  /// What the store keeps in memory, oldest first; may be empty.
  virtual const std::vector<DecisionRecord>& records() const = 0;
};

/// Appends one JSON line per decision to `path`, flushed and checked, and keeps no records; with
/// path "" it keeps them in memory only. Line: {"sequence", "time", "type": "start_generation" |
/// "verdict" | "end_run", ...}. A verdict line has boundary, step, verdict ("keep" | "plan"),
/// plan_epoch, frontier, cuts, moves, moved_bytes, predicted times, eta, reason.
absl::StatusOr<std::unique_ptr<DecisionStore>> MakeMemoryDecisionStore(const std::string& path);

/// The JSON line of one decision, without newline.
std::string DecisionJson(int64_t sequence, absl::Time now, const Decision& decision);

}  // namespace smartpipe
