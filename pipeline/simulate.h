// Plays programs against costs: step time, idle time, deadlock.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "pipeline/instruction.h"
#include "pipeline/schedule.h"

namespace smartpipe {

/// Seconds per instruction of one micro-batch, per stage.
struct StageCost {
  double forward_s = 0;
  double input_grad_s = 0;   // I; none for the model's first trainable layer and below
  double weight_grad_s = 0;  // W; 0 at frozen stages. B costs input_grad_s + weight_grad_s.
  double optimize_s = 0;     // OPT
};
struct LinkCost {
  double latency_s = 0;
  double forward_s = 0;   // transfer time of one activation on edge s -> s+1
  double backward_s = 0;  // and of its gradient
};

enum class SendMode {
  // A send waits for nothing but a credit; receives are posted ahead, and what reads their data
  // waits for the arrival. Transfers overlap compute; on one edge and direction they follow each
  // other.
  kBuffered,
  // A send waits until its receive starts, and the receive until the send; both take the transfer.
  kRendezvous,
};

struct SimulateOptions {
  SendMode send_mode = SendMode::kBuffered;
  // Back-to-back steps. Ranks go on to the next step on their own (synchronous training is kept by
  // data dependencies; frozen ranks run ahead).
  int num_steps = 1;
  // [edge] sent but not yet consumed activations allowed, each >= 1; an activation is consumed when
  // the forward that reads it ends. Empty = unbounded. Rendezvous sends need none.
  std::vector<int32_t> credits = {};
  // False: all ranks meet at each step's end.
  bool run_ahead = true;
};

struct TimedInstruction {
  Instruction instruction;
  int step = 0;
  double start_s = 0, end_s = 0;
};

struct SimulateResult {
  double makespan_s = 0;
  double step_s = 0;  // steady state: (end of last step - end of first step) / (num_steps - 1);
                      // makespan for one step
  std::vector<double> busy_s;  // [rank] compute time
  // [rank], in the order in which they ran; with buffered sends a receive is the wait for it, right
  // before what reads its data.
  std::vector<std::vector<TimedInstruction>> trace;
};

/// Plays lowered programs.  costs: one per stage; links: one per edge (empty = free).
/// Errors: FAILED_PRECONDITION "deadlock" with the grid and the cell each rank waits at;
/// INVALID_ARGUMENT for sizes. Cost: O(instructions * num_steps).  Threads: pure.
absl::StatusOr<SimulateResult> Simulate(const ScheduleShape& shape,
                                        const std::vector<Program>& programs,
                                        const std::vector<StageCost>& costs,
                                        const std::vector<LinkCost>& links,
                                        const SimulateOptions& options);

}  // namespace smartpipe
