// What a stage worker says to the freeze service and hears from it, as plain values: no wire types,
// so that the engine and main can use them. The meaning of every field is that of the message with
// the same name in proto/smartpipe/v1/freeze_service.proto.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "pipeline/partition.h"
#include "pipeline/plan.h"
#include "services/base/ids.h"

namespace smartpipe {

// ---- Heard --------------------------------------------------------------------------------------

/// First message of the service: enough to build the model and profile it.
struct RunWelcome {
  std::string run_id;
  std::string config_toml;  // for ParseRunConfig
  std::string run_dir;      // on the machine of the service; all workers of a local run share it
  int32_t num_cores = 0;    // that all workers share; 0 = each has its own
  std::string parameter_service;  // HOST:PORT; empty = no checkpoints are taken
};

/// All wanted workers are there.
struct WorkerAssignment {
  Generation generation;
  Rank rank;                          // of this worker
  std::vector<WorkerId> members;      // [rank]
  Plan plan;                          // in force at first_step
  Step first_step = {};               // 0, or that of the checkpoint to go on from
  IntervalIndex first_boundary = {};  // of the first verdict that will come; at most first_step's
};

/// The service's word for one boundary.
struct WorkerVerdict {
  IntervalIndex boundary;
  Step step;                                // where it takes effect
  std::optional<Plan> plan = std::nullopt;  // nothing = keep
  std::string reason = {};                  // shown verbatim
  bool stop = false;                        // no step is run from here on
  bool checkpoint = false;                  // one is taken here
};

// ---- Said ---------------------------------------------------------------------------------------

/// One entry of the model's layer list, profiled before joining.
struct LayerDescription {
  std::string name;  // as in the weights file
  LayerCost cost;
};

/// Statistics of one layer over one interval. Norms are L2, of the gradient before clipping.
struct LayerReportInfo {
  LayerIndex layer;
  bool frozen = false;        // then the statistics are 0
  bool has_previous = false;  // the layer was trainable during the whole interval before this one
  double grad_norm_l2 = 0;    // || g(t) ||, g(t) = mean gradient over the interval
  double previous_grad_norm_l2 = 0;                // || g(t-1) ||
  double grad_difference_norm_l2 = 0;              // || g(t-1) - g(t) ||
  double microbatch_grad_norm2_mean = 0;           // statistic "corrected" only
  double previous_microbatch_grad_norm2_mean = 0;  // same, one interval before
  int64_t num_microbatches = 0;
  int64_t num_nonfinite_steps = 0;
  LayerCost cost;  // medians over the interval; a field < 0 = not measured
};

/// One worker's report for one interval: exactly the layers of its stage, ascending.
struct IntervalReportInfo {
  Generation generation;
  PlanEpoch plan_epoch;  // of the plan in force in the interval
  IntervalIndex interval;
  std::vector<LayerReportInfo> layers;
  double step_s = 0;          // median step time
  double verdict_wait_s = 0;  // waiting for the verdict at the interval's start
  double switch_drain_s = 0;  // plan switch at the interval's start, if there was one
  double switch_move_s = 0;
  int64_t switch_moved_bytes = 0;
  double link_bytes_per_s = 0;  // from this worker to the next one; 0 = not measured
  double link_latency_s = 0;
};

/// One optimizer step (told by the last stage only).
struct StepProgressInfo {
  Step step;
  double loss = 0;    // mean over the global batch
  double step_s = 0;  // from the end of the step before
};

/// One pass over the test set (told by the last stage only).
struct EvaluationInfo {
  Step step;            // steps trained so far
  double accuracy = 0;  // 0..1
  double loss = 0;
  double seconds = 0;
};

/// What a worker leaves behind when it has done all steps of its generation.
struct WorkerResult {
  double train_s = 0;         // first step's start to last step's end, without evaluation
  double verdict_wait_s = 0;  // sums over the run
  double switch_s = 0;
  double report_s = 0;                   // on the compute thread
  double checkpoint_s = 0;               // on the compute thread
  int64_t checkpoint_bytes_written = 0;  // new to the store
  int64_t checkpoint_bytes_shared = 0;   // the store had them
  std::string weights_sha256 = {};       // last stage only
};

}  // namespace smartpipe
