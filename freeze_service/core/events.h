// What the core hears (past-tense facts) and what it orders (decisions). Plain values: no wire
// types, no clock.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "freeze_service/core/policy.h"
#include "pipeline/partition.h"
#include "pipeline/plan.h"
#include "services/base/ids.h"

namespace smartpipe {

/// Gradient statistics of one layer over one interval. Norms are L2, >= 0, of the gradient before
/// clipping.
struct LayerStatistics {
  LayerIndex layer;
  bool frozen = false;        // no gradient was computed: the numbers below are 0
  bool has_previous = false;  // the layer was trainable during the whole interval before this one
  double grad_norm_l2 = 0;    // || g(t) ||, g(t) = mean gradient over the interval
  double previous_grad_norm_l2 = 0;    // || g(t-1) ||
  double grad_difference_norm_l2 = 0;  // || g(t-1) - g(t) ||
  // Mean over micro-batches of || g_mb ||^2; statistic "corrected" only.
  double microbatch_grad_norm2_mean = 0;
  double previous_microbatch_grad_norm2_mean = 0;  // same, one interval before
  int64_t num_microbatches = 0;                    // in the interval
  int64_t num_nonfinite_steps = 0;                 // steps whose gradient held a NaN or an infinity
};

/// One layer as a worker describes it when it joins; the same on all workers.
struct LayerInfo {
  std::string name;
  LayerCost cost;  // profiled on the worker before joining
};

// ---- Events -------------------------------------------------------------------------------------

/// Length of the run in steps, derived by each worker from the same config and dataset; the same on
/// all workers.
struct RunLength {
  int64_t num_steps = 0;        // >= 1
  int64_t steps_per_epoch = 0;  // >= 1
  int64_t interval_steps = 0;   // K >= 1

  bool has_boundary(IntervalIndex boundary) const {
    return boundary.value() * interval_steps < num_steps;
  }
  int64_t num_boundaries() const { return (num_steps + interval_steps - 1) / interval_steps; }
  Step step_of(IntervalIndex boundary) const { return Step(boundary.value() * interval_steps); }
  /// The newest one at or before `step`.
  IntervalIndex boundary_at(Step step) const {
    const IntervalIndex interval(step.value() / interval_steps);
    return has_boundary(interval) ? interval : interval - 1;
  }
  friend bool operator==(const RunLength&, const RunLength&) = default;
};

/// How the run is carried out: what may change when it is resumed, as it changes no result.
struct ExecutionOptions {
  int32_t num_stages = 2;
  int32_t stages_per_worker = 1;  // dealt out in turn, see DealStages
  std::string schedule = "1f1b";
  bool run_ahead = true;
  int32_t num_cores = 0;         // that all workers share; 0 = each has its own
  std::vector<LayerIndex> cuts;  // start cuts; empty = planned from the workers' profiles
  bool rebalance_enabled = true;
  double rebalance_min_gain = 0.03;

  int32_t num_workers() const { return num_stages / stages_per_worker; }  // wanted
  friend bool operator==(const ExecutionOptions&, const ExecutionOptions&) = default;
};

/// A worker is ready to be given a stage in the next generation.
struct WorkerJoined {
  WorkerId worker;
  // Differs between two processes with one id: the process's start time in microseconds.
  int64_t incarnation = 0;
  RunLength length;
  std::vector<LayerInfo> layers;
  // Steps of the complete checkpoints that it can load, ascending.
  std::vector<Step> checkpoints;
};

/// The worker's report for one interval. It covers exactly the layers of its stage.
struct IntervalReported {
  WorkerId worker;
  Generation generation;
  PlanEpoch plan_epoch;  // of the plan in force in the interval
  IntervalIndex interval;
  std::vector<LayerStatistics> statistics;
  // Medians over the interval, same order; a field < 0 = not measured (frozen layer).
  std::vector<LayerCost> costs;
  double step_s = 0;          // median step time
  double verdict_wait_s = 0;  // waiting for the verdict at the interval's start
  double switch_drain_s = 0;  // last plan switch, if one happened at the interval's start
  double switch_move_s = 0;
  int64_t switch_moved_bytes = 0;
  double link_bytes_per_s = 0;  // from this worker to the next one; 0 = not measured
  double link_latency_s = 0;
};

struct WorkerLost {
  WorkerId worker;
  int64_t incarnation = 0;
  std::string how;  // "its connection broke"
};

/// A worker ended by itself with an error.
struct WorkerFailed {
  WorkerId worker;
  Generation generation;
  std::string message;
};

/// A worker cannot go on with its generation, through no fault of its own: a peer's connection
/// broke, or nothing came of a wait.
struct FaultReported {
  WorkerId worker;
  Generation generation;
  std::string message;
};

/// A worker's own figures of its generation; they decide nothing.
struct WorkerFigures {
  double train_s = 0;         // first step's start to last step's end, without evaluation
  double verdict_wait_s = 0;  // sum of all waits for verdicts
  double switch_s = 0;        // sum of all plan switches
  double report_s = 0;        // spent on statistics and reports by the compute thread
  double checkpoint_s = 0;    // sum of its pauses for checkpoints
  // Of its layers, over all checkpoints: what was new to the store, and what it had.
  int64_t checkpoint_bytes_written = 0, checkpoint_bytes_shared = 0;
  std::string weights_sha256;  // of the last stage only, lower-case hex
};

/// A worker has done all its steps (and the last stage has written the weights), or all before the
/// step at which the run stops.
struct WorkerFinished {
  WorkerId worker;
  Generation generation;
  WorkerFigures result;
};

// ---- Orders: what an operator may want ----

/// Layers [0, frontier) are frozen.
struct FreezeLayers {
  LayerIndex frontier;
  friend bool operator==(const FreezeLayers&, const FreezeLayers&) = default;
};
/// Layers from `frontier` on train again, and stay trainable until a FreezeLayers or ChangePolicy.
struct UnfreezeLayers {
  LayerIndex frontier;
  friend bool operator==(const UnfreezeLayers&, const UnfreezeLayers&) = default;
};
/// Other cuts, whether they pay or not.
struct RebalanceStages {
  std::vector<LayerIndex> cuts;  // empty = the best that the planner finds
  friend bool operator==(const RebalanceStages&, const RebalanceStages&) = default;
};
/// What is given of the freezing policy changes; the rest stays as it is then.
struct ChangePolicy {
  std::optional<std::string> policy;
  std::optional<double> tau, lambda_max;
  std::optional<int32_t> warmup_intervals, hits, min_trainable, fixed_layers;
  std::vector<std::pair<Step, LayerIndex>> schedule;  // empty = it stays
  friend bool operator==(const ChangePolicy&, const ChangePolicy&) = default;
};
/// The boundary gets no verdict, so nobody passes it, until ResumeRun.
struct PauseRun {
  friend bool operator==(const PauseRun&, const PauseRun&) = default;
};
struct ResumeRun {
  friend bool operator==(const ResumeRun&, const ResumeRun&) = default;
};
struct TakeCheckpoint {
  friend bool operator==(const TakeCheckpoint&, const TakeCheckpoint&) = default;
};
/// The worker leaves behind a checkpoint; the others go on from there, with its stages fewer.
struct DrainWorker {
  WorkerId worker;
  friend bool operator==(const DrainWorker&, const DrainWorker&) = default;
};
/// The run ends, behind a checkpoint; at_once: now, without one.
struct StopRun {
  bool at_once = false;
  friend bool operator==(const StopRun&, const StopRun&) = default;
};

using Order = std::variant<FreezeLayers, UnfreezeLayers, RebalanceStages, ChangePolicy, PauseRun,
                           ResumeRun, TakeCheckpoint, DrainWorker, StopRun>;

/// An operator's order. It is carried out by the verdict of one boundary.
struct OrderGiven {
  std::string request_id;    // who repeats it means the same order; not empty
  std::string who;           // who gives it, for people; empty = not known
  std::string why;           // in the operator's own words; may be empty
  std::optional<Step> step;  // of the boundary; nothing = the next one that has no verdict yet
  Order order;
  friend bool operator==(const OrderGiven&, const OrderGiven&) = default;
};

/// The run, which had ended or been cut off, goes on with new workers.
struct RunResumed {
  ExecutionOptions execution;
  std::optional<Step> step;  // of the checkpoint to go on from; nothing = the newest
};

using Event = std::variant<WorkerJoined, IntervalReported, WorkerLost, WorkerFailed, WorkerFinished,
                           OrderGiven, FaultReported, RunResumed>;

// ---- Decisions ----------------------------------------------------------------------------------

/// All wanted workers are there: everyone starts generation `generation` with `plan` at `step`,
/// from the checkpoint of that step; 0 = from the start. The verdicts of the boundary before or at
/// `step` and of later ones are given anew, with the frontiers that they had.
struct StartGeneration {
  Generation generation;
  std::vector<WorkerId> members;  // [rank]
  Plan plan;                      // in force at `step`
  Step step;
};

/// The members cannot go on together: those that are left stop, and all join again.
struct EndGeneration {
  Generation generation;
  std::string reason;  // who was lost, and how
};

/// Exactly one per boundary and generation.
struct Verdict {
  IntervalIndex boundary;
  Step step;                    // boundary * K: where it takes effect
  std::optional<Plan> plan;     // nothing = keep
  std::string reason;           // a sentence shown verbatim everywhere
  std::string frontier_reason;  // the part of it that the frontier's policy said
  bool stop = false;            // everyone stops here, behind a checkpoint
  bool checkpoint = false;      // everyone takes a checkpoint here, before the plan is applied
  // The numbers behind it.
  LayerIndex frontier;           // in force from here on, also when kept
  std::vector<LayerIndex> cuts;  // likewise
  PlanEpoch plan_epoch;          // likewise
  std::vector<LayerMove> moves;  // empty = no layer changes its owner
  int64_t moved_bytes = 0;
  double predicted_old_step_s = 0;  // with the old cuts and the new frontier; 0 = not computed
  double predicted_step_s = 0;      // with the new cuts
  double even_step_s = 0;           // all work evenly spread: no cut can be faster
  // [layer] the statistic of the newest interval; NaN = no evidence. Empty = the boundary was
  // decided before, by a verdict that has them.
  std::vector<double> eta;
};

/// The run is over; every worker ends.
struct EndRun {
  bool success = false;
  std::string reason;  // names who died or why it failed; "all 2 workers finished" on success
};

/// The order of this request is carried out by the verdict of `boundary`; a stop at once by none.
struct OrderAccepted {
  std::string request_id;
  IntervalIndex boundary;
  Step step;  // where it takes effect
  friend bool operator==(const OrderAccepted&, const OrderAccepted&) = default;
};

/// A worker has left the run on an operator's order.
struct WorkerDrained {
  WorkerId worker;
  std::string reason;
};

using Decision =
    std::variant<StartGeneration, Verdict, EndRun, EndGeneration, OrderAccepted, WorkerDrained>;

}  // namespace smartpipe
