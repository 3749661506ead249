// What a Coordinator knows besides its options and verdicts, as a plain value that can be stored.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "freeze_service/core/events.h"
#include "freeze_service/core/evidence.h"
#include "services/base/ids.h"

namespace smartpipe {

enum class RunState { kWaiting, kRunning, kFinished, kFailed };

/// How far one worker has come.
struct WorkerProgress {
  IntervalIndex next_interval;          // not reported yet
  std::optional<WorkerFigures> result;  // once it has finished
  bool finished() const { return result.has_value(); }
};

struct CoordinatorState {
  RunState run_state = RunState::kWaiting;
  std::string end_reason;
  Generation generation;
  std::vector<WorkerJoined> members;     // [rank]
  std::vector<WorkerProgress> progress;  // [rank], from the start on
  Evidence evidence;
  // Intervals in a row that proposed a move.
  int32_t num_proposals = 0;
  // Reports by rank of the newest complete interval (to recognise repeats) and of later ones: at
  // most 3 intervals.
  std::map<IntervalIndex, std::map<Rank, IntervalReported>> reports;
};

}  // namespace smartpipe
