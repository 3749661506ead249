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

/// An order that was accepted.
struct OrderRecord {
  OrderGiven given;
  IntervalIndex boundary;  // whose verdict carries it out
  Step step;               // where it takes effect
  bool done = false;
};

/// What operators have ordered, and what of it lasts. A plain value.
struct Orders {
  // All that are open and the newest of the others, in the order in which they came.
  std::vector<OrderRecord> records;
  std::optional<IntervalIndex> paused_at;    // that boundary and those behind it get no verdict
  std::optional<LayerIndex> keep_trainable;  // no policy freezes layers from this one on
  std::string stop_why;  // why the run stops, or was stopped; empty = nobody has stopped it
  WorkerId leaving;      // who leaves at the boundary at which the generation stops; empty = nobody
  std::vector<WorkerId> drained;  // they may not come back
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
  PolicyOptions policy;
  Orders orders;
  std::vector<WorkerJoined> members;     // [rank]
  std::vector<WorkerProgress> progress;  // [rank], while a generation runs
  std::optional<Plan> plan;              // the newest decided one
  Evidence evidence;
  IntervalIndex next_to_learn;  // the oldest one of the generation that `evidence` does not know
  // Intervals in a row that proposed a move.
  int32_t num_proposals = 0;
  // Reports by rank of the newest complete interval (to recognise repeats) and of later ones: at
  // most 3 intervals.
  std::map<IntervalIndex, std::map<Rank, IntervalReported>> reports;
};

}  // namespace smartpipe
