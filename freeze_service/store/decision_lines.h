// decisions.jsonl: one JSON line per decision, for people and scripts; a copy of what the store
// holds.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "freeze_service/core/event_record.h"

namespace smartpipe {

/// Line: {"sequence", "time", "type": "start_generation" | "verdict" | "end_run", ...}. A verdict
/// line has boundary, step, verdict ("keep" | "plan"), plan_epoch, frontier, cuts, moves,
/// moved_bytes, predicted times, eta, reason.
/// Errors of all: the system's reason with the path.  Threads: one at a time.
class DecisionLines {
 public:
  /// `path` is made when it is not there.
  static absl::StatusOr<std::unique_ptr<DecisionLines>> Open(const std::string& path);
  ~DecisionLines();
  DecisionLines(const DecisionLines&) = delete;
  DecisionLines& operator=(const DecisionLines&) = delete;

  /// Of the last whole line; -1 = there is none, or it is no decision.
  int64_t last_sequence() const { return last_sequence_; }
  /// Takes away what stands behind the last line of a record before `sequence`.  Cost: reads the
  /// file.
  absl::Status CutFrom(int64_t sequence);
  /// Writes the record's lines; does not sync them.
  absl::Status Append(const EventRecord& record);

 private:
  DecisionLines(int fd, std::string path) : fd_(fd), path_(std::move(path)) {}
  /// All lines of a plain file; empty for pipes and devices.
  absl::StatusOr<std::string> ReadAll() const;

  const int fd_;
  const std::string path_;
  int64_t last_sequence_ = -1;
};

}  // namespace smartpipe
