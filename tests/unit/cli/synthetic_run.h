// Run directories made from the simulator's own result, with the faults that a test asks for.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "pipeline/simulate.h"
#include "services/obs/trace_file.h"

namespace smartpipe::testutil {

/// Steps under one plan; all workers start it together.
struct SyntheticStretch {
  TracePlan plan;  // step is filled in
  std::vector<StageCost> costs;
  std::vector<LinkCost> links = {};
  int num_steps = 20;
  // Before its first step:
  double verdict_wait_s = 0, drain_s = 0, move_s = 0, evaluate_s = 0;
  double send_s =
      0;  // of the costs' forward_s and input_grad_s: spent in the send, if there is one
  double idle_s = 0;  // before each of its steps but the first, for no reason
};

struct SyntheticClock {
  int64_t offset_ns = 0;                    // service's clock - the worker's, at time 0
  double drift = 0;                         // the offset grows by this share of the time
  std::vector<ClockReading> readings = {};  // local_ns: on the common clock; offset_ns: its error
};

struct SyntheticRun {
  int32_t num_layers = 8, num_microbatches = 4;
  int64_t interval_steps = 20;
  int32_t num_cores = 0;
  std::vector<SyntheticStretch> stretches;
  std::vector<SyntheticClock> clocks = {};  // [rank]; empty = one machine that needs none
  std::string decisions;                    // text of decisions.jsonl; empty = no such file
};

/// A plan of one stage per rank.
TracePlan MakePlan(int32_t frontier, std::vector<int32_t> cuts, int32_t credits = 4,
                   const std::string& schedule = "1f1b");
/// Every field of each stage: forward, input gradient, weight gradient, optimizer, in ms.
StageCost CostMs(double forward, double input_grad, double weight_grad, double optimize = 0);

/// Writes trace-w<rank>.jsonl and decisions.jsonl into `dir`.
void WriteRun(const SyntheticRun& run, const std::string& dir);

}  // namespace smartpipe::testutil
