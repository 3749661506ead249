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

/// What happened to the run besides its verdicts.
struct RunHistory {
  Step first_step;                        // of the newest generation
  Plan start_plan;                        // in force there
  int64_t num_recoveries = 0;             // generations that ended early
  std::string last_fault;                 // why the last of them did
  std::optional<Step> resumed_from;       // where it was resumed last
  std::vector<int64_t> restart_times_us;  // since 1970, of those within kRestartWindow
};

struct CoordinatorState {
  RunState run_state = RunState::kWaiting;
  std::string end_reason;
  Generation generation;
  ExecutionOptions execution;
  RunLength length;  // zeros before the first join
  RunHistory history;
  bool is_resuming = false;         // until the next generation starts
  std::optional<Step> resume_step;  // of the checkpoint that it is to go on from
  std::string stop_reason;          // why the run is to stop at a boundary; empty = it is not
  // Verdicts of an earlier generation for boundaries that have none in this one yet, ascending.
  std::vector<Verdict> earlier_verdicts;
  std::vector<WorkerJoined> members;     // [rank]
  std::vector<WorkerProgress> progress;  // [rank], while a generation runs
  std::optional<Plan> plan;              // the newest decided one
  Evidence evidence;
  // Intervals in a row that proposed a move.
  int32_t num_proposals = 0;
  // Reports by rank of the newest complete interval (to recognise repeats) and of later ones: at
  // most 3 intervals.
  std::map<IntervalIndex, std::map<Rank, IntervalReported>> reports;
};

}  // namespace smartpipe
