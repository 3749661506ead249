// The planner: contiguous cuts from measured costs, and the test whether moving is worth it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "pipeline/plan.h"
#include "pipeline/schedule.h"
#include "pipeline/simulate.h"
#include "services/base/ids.h"

namespace smartpipe {

/// Measured cost of one layer for one micro-batch. Seconds and bytes, all >= 0 and finite.
struct LayerCost {
  double forward_s = 0;
  double input_grad_s = 0;
  double weight_grad_s = 0;      // and adding it to those of the other micro-batches
  double optimize_s = 0;         // per step, not per micro-batch
  int64_t output_bytes = 0;      // activation at the layer's output edge
  int64_t param_bytes = 0;       // weights and buffers
  int64_t state_bytes = 0;       // what moves with it: weights, buffers, optimizer, statistic
  int64_t activation_bytes = 0;  // saved for backward
};

struct PlannerInput {
  std::vector<LayerCost> layers;
  int32_t num_stages = 1;  // 1..layers.size()
  int32_t num_microbatches = 1;
  std::string schedule = "1f1b";
  LayerIndex frontier;
  int32_t stages_per_worker = 1;     // dealt out in turn, see DealStages
  bool run_ahead = true;             // false: all workers meet at each step's end
  int32_t num_cores = 0;             // that all workers share evenly; 0 = each has its own
  std::vector<double> worker_speed;  // [rank] relative, 1 = as measured; empty = all 1
  double link_bytes_per_s = 0;       // 0 = free
  double link_latency_s = 0;
  int64_t memory_limit_bytes = 0;  // of each worker, all its stages together; 0 = none

  int32_t num_workers() const { return num_stages / stages_per_worker; }
  bool shares_cores() const { return num_cores > 0 && num_cores < num_workers(); }
  /// Speed of the worker that runs `stage`.
  double stage_speed(int32_t stage) const {
    return worker_speed.empty() ? 1 : worker_speed[stage % num_workers()];
  }
  ScheduleShape shape(int32_t num_frozen_stages) const {
    return {.num_stages = num_stages,
            .num_microbatches = num_microbatches,
            .num_frozen_stages = num_frozen_stages,
            .stage_to_rank = DealStages(num_stages, num_workers())};
  }
};

/// Stage costs of `cuts` (frozen layer: forward only; first trainable layer: no input gradient).
std::vector<StageCost> StageCosts(const PlannerInput& input, const std::vector<LayerIndex>& cuts);
/// Frozen stages that `cuts` and the frontier give.
int32_t NumFrozenStages(const std::vector<LayerIndex>& cuts, int32_t num_layers,
                        LayerIndex frontier);
/// Transfer times of the edges at `cuts`; empty when links are free.
std::vector<LinkCost> LinkCosts(const PlannerInput& input, const std::vector<LayerIndex>& cuts);
/// Memory of one stage that holds `layers`: trainable layers their state (weights, buffers,
/// optimizer, statistic), the gradients of their weights and the saved activations of all
/// micro-batches in flight; frozen layers their weights; and the receive buffers of both edges with
/// the messages that are being sent, as far as they are not activations already.
int64_t StageMemoryBytes(const PlannerInput& input, StageIndex stage, LayerRange layers);
/// Steady-state step time of `cuts`, by simulation: buffered sends, DefaultCredits, after the first
/// step.
/// Errors: INVALID_ARGUMENT for the input's fields and for cuts that do not fit it.
absl::StatusOr<double> SimulatedStepSeconds(const PlannerInput& input,
                                            const std::vector<LayerIndex>& cuts);

/// Total work of a step / total speed of the workers, or of as many of the fastest as there are
/// cores: no cut can be faster.  Errors: INVALID_ARGUMENT for the input's fields.
absl::StatusOr<double> EvenStepSeconds(const PlannerInput& input);

/// How much longer than a later step the first one takes, which begins in an empty pipeline: what
/// draining costs when frozen stages had run ahead.  Errors: those of SimulatedStepSeconds.
absl::StatusOr<double> RefillSeconds(const PlannerInput& input,
                                     const std::vector<LayerIndex>& cuts);

struct PartitionResult {
  std::vector<LayerIndex> cuts;
  double step_s = 0;  // simulated
  double even_s = 0;  // EvenStepSeconds
  // The same, or the heaviest layer's work on the fastest worker if that is more.
  double floor_s = 0;
};
/// Cuts with the least simulated step time. Deterministic: the same input gives the same cuts; of
/// equally fast ones the smaller first differing cut among those tried.
/// Errors: INVALID_ARGUMENT for sizes and negative or non-finite costs; RESOURCE_EXHAUSTED when no
/// cut fits the memory, naming the worker that is short and by how much. If workers have several
/// stages and there are too many cuts to try, the message says so: then none was found.
/// Cost: limited; 1,000 layers on 64 stages take 30 to 50 ms with up to 1,024 micro-batches, 130 ms
/// with 4,096; on shared cores 0.1 s with 256, 2 s with 4,096. Small problems are searched to the
/// end, and are exact then.
absl::StatusOr<PartitionResult> Partition(const PlannerInput& input);

/// The search gives up exactness after about this many played instructions.
inline constexpr int64_t kSearchBudget = 10'000'000;
/// The same with another budget; for tests.
absl::StatusOr<PartitionResult> Partition(const PlannerInput& input, int64_t budget);

/// Limits of the speed-up of one step when the prefix holds `phi` of the work: rho = backward /
/// forward (2 = usual).
double SpeedupLimit(double phi, double rho);  // (1+rho) / (1 + (1-phi) rho)
/// Exact, from measured costs; optimizer steps left out.
double SpeedupLimit(const std::vector<LayerCost>& layers, LayerIndex frontier);

struct MoveTest {
  double old_step_s = 0, new_step_s = 0;
  int64_t steps_left = 0;
  double drain_s = 0, refill_s = 0;
  int64_t moved_bytes = 0;
  double bytes_per_s = 0;  // of the moves; 0 = free
  double min_gain = 0.03;
};
struct MoveVerdict {
  bool move = false;
  // "step 41.2 -> 33.0 ms (-19.9%), saves 9.84 s over 1200 steps, costs 0.05 s"
  std::string reason;
};
/// Move only if (T_old - T_new) * steps_left > drain + refill + moved_bytes / bandwidth and (T_old
/// - T_new) / T_old >= min_gain.
MoveVerdict MoveOrStay(const MoveTest& test);

}  // namespace smartpipe
