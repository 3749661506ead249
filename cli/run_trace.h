// A whole run as it was measured: the traces of all its workers on one clock, and the decisions.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "pipeline/instruction.h"
#include "services/obs/trace_file.h"

namespace smartpipe {

/// Times are nanoseconds of the common clock, 0 at the run's first event.
struct RunEvent {
  Instruction instruction;
  int64_t start_ns = 0, end_ns = 0;
  int64_t ns() const { return end_ns - start_ns; }
};
struct RunStep {
  int64_t step = 0;
  int64_t line = 0;  // of the worker's file
  std::vector<RunEvent> events;
};

struct WorkerTrace {
  TraceHeader header;
  std::vector<RunStep> steps;    // ascending; a step may be missing, the last one may be cut short
  std::vector<TraceSpan> spans;  // by step, on the common clock
  int64_t num_dropped = 0;

  int64_t offset_ns = 0;  // common clock - the worker's, in the middle of the run, plus a constant
  int64_t error_ns = 0;   // against the service's clock
  bool clock_measured = false;
  std::string same_clock_as;  // another worker of the same machine: no error between them

  /// Null when it is not there.
  const RunStep* FindStep(int64_t step) const;
  /// Those right before `step`.
  absl::Span<const TraceSpan> SpansBefore(int64_t step) const;
};

/// A line of decisions.jsonl with "type": "verdict".
struct RunDecision {
  int64_t step = 0;
  int64_t plan_epoch = 0;
  int32_t frontier = 0;
  std::vector<int32_t> cuts;
  bool is_plan = false;  // else "keep"
  int32_t num_moves = 0;
  int64_t moved_bytes = 0;
  double predicted_old_step_s = 0, predicted_step_s = 0, even_step_s = 0;  // 0 = not known
  std::string reason;

  /// A plan, or a move that was worth thinking of and refused; not "nothing changes".
  bool notable() const { return is_plan || predicted_step_s < predicted_old_step_s; }
};

struct RunTrace {
  std::string run_dir;
  std::vector<WorkerTrace> workers;    // by rank
  std::vector<TracePlan> plans;        // by step, at least one, the first at the first step
  std::vector<RunDecision> decisions;  // by step
  std::vector<std::string> notes;      // what a reader should know: sentences

  const TraceHeader& header() const { return workers.front().header; }
  /// Whether there are fewer cores than workers.
  bool shares_cores() const {
    return header().num_cores > 0 && header().num_cores < header().num_ranks;
  }
  /// Cores that the workers can keep busy: one each, or fewer where they share them.
  int num_cores() const { return shares_cores() ? header().num_cores : header().num_ranks; }
  /// Index of the plan in force at `step`.
  int PlanIndex(int64_t step) const;
  const TracePlan& PlanAt(int64_t step) const { return plans[PlanIndex(step)]; }
  /// Steps of which any worker has something: [first_step, end_step).
  int64_t first_step = 0, end_step = 0;
  /// When the last optimizer of `step` ended; -1 when a worker's part of it is missing.
  int64_t StepEndNs(int64_t step) const;
  /// The decision that made the plan in force from `step` on; null when it is not known.
  const RunDecision* DecisionOfPlan(const TracePlan& plan) const;
};

/// Reads RUN/trace-*.jsonl and RUN/decisions.jsonl of a run that may still go on or was killed.
///
/// Errors, each with its cure: NOT_FOUND when there is no such folder or no trace in it;
/// INVALID_ARGUMENT for files that are not what they should be, for a worker without its trace,
/// for a trace of another run among them, and for one that holds another rank's stages.
absl::StatusOr<RunTrace> LoadRunTrace(const std::string& run_dir);

}  // namespace smartpipe
