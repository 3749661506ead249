// Internal to pipeline/: programs put into one order in which they can be played, and played
// against costs.
//
// What validates, simulates and plans shares this file, so that there is one notion of "waits for".
// The order does not depend on costs: a planner makes a Play once and runs it for thousands of
// cuts.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "pipeline/instruction.h"
#include "pipeline/schedule.h"
#include "pipeline/simulate.h"

namespace smartpipe {

/// Checks that there is one program per rank and that each cell's rank, stage and micro-batch exist
/// and fit. FAILED_PRECONDITION with the grid and the cell.
absl::Status CheckCells(const ScheduleShape& shape, const std::vector<Program>& programs);
/// "<what>" with the place, the grid and the cell marked.
absl::Status CellError(const std::vector<Program>& programs, int rank, int index,
                       absl::string_view what);

/// Directed edges: channel s is s -> s+1 (activations), channel S-1+s is s+1 -> s (gradients); 2S-2
/// in all. The channel that SF, RF, SB or RB uses.
int32_t ChannelOf(const ScheduleShape& shape, const Instruction& instruction);
/// The instruction at the other end: 0SF2 <-> 1RF2.
Instruction PeerOf(const Instruction& instruction);

class Play {
 public:
  /// Errors: FAILED_PRECONDITION when the programs deadlock, or receive in another order than they
  /// send. credits as in SimulateOptions.  Cost: O(instructions).
  static absl::StatusOr<Play> Make(const ScheduleShape& shape, const std::vector<Program>& programs,
                                   SendMode send_mode, const std::vector<int32_t>& credits,
                                   bool run_ahead = true);

  /// Times of num_steps >= 1 steps. Sizes as in Simulate, which checks them.
  /// trace: fills busy_s and trace; without it (for planning) both stay empty or zero.
  SimulateResult Run(const std::vector<StageCost>& costs, const std::vector<LinkCost>& links,
                     int num_steps, bool trace) const;
  /// The same when the ranks share num_cores >= 1 cores evenly; buffered sends only, no trace, and
  /// step_s for num_steps >= 2.  Cost: O(instructions * num_steps * log(ranks)).
  SimulateResult RunShared(const std::vector<StageCost>& costs, const std::vector<LinkCost>& links,
                           int num_steps, int num_cores) const;

  /// Steps that RunShared plays for num_steps of them.
  int num_shared_steps(int num_steps) const;
  int64_t num_events() const { return static_cast<int64_t>(events_.size()); }

 private:
  static constexpr int kNumOps = static_cast<int>(Op::kOptimize) + 1;
  struct Event {
    Instruction instruction;
    int32_t rank = 0;
    int32_t peer_rank = 0;  // of SEND with rendezvous: both ends are one event
    int32_t channel = 0;    // of SEND and RECV
    int32_t awaits = -1;    // of F, B and I with buffered sends: the channel whose message it reads
    int32_t send_index = 0;  // of SF: how many this step sent before it on its edge
  };
  /// Costs as the clockworks look them up.
  struct Times {
    Times(const ScheduleShape& shape, const std::vector<StageCost>& costs,
          const std::vector<LinkCost>& links);
    std::vector<std::array<double, kNumOps>> cost_s;  // [stage][op]
    std::vector<double> latency_s, transfer_s;        // [channel]
  };
  struct Clockwork;       // the moving parts of Run
  class SharedClockwork;  // and of RunShared

  /// True if the end of `event` gives back a credit of channel `event.awaits`, which is an edge.
  bool ReturnsCredit(const Event& event) const {
    return event.awaits >= 0 && event.awaits < static_cast<int32_t>(credits_.size());
  }

  ScheduleShape shape_;
  SendMode send_mode_ = SendMode::kBuffered;
  std::vector<int32_t> credits_;
  bool run_ahead_ = true;
  std::vector<int32_t> num_sent_;  // [channel] messages per step
  std::vector<Event> events_;      // of one step; a step's order can follow the one before it

  friend class PlayMaker;
};

}  // namespace smartpipe
