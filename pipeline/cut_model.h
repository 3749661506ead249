// Internal to pipeline/: what a planner can say about cuts without simulating them.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "pipeline/partition.h"

namespace smartpipe {

/// Cuts with both ends: stage s holds layers [borders[s], borders[s+1]); borders[0] = 0, borders[S]
/// = num layers.
using Borders = std::vector<int32_t>;

Borders ToBorders(const std::vector<LayerIndex>& cuts, int32_t num_layers);
std::vector<LayerIndex> ToCuts(const Borders& borders);

/// Sums over layer ranges in O(1), floors of the step time (which no cut can be below), memory, and
/// cuts that are good by those floors. All times are seconds of one micro-batch on a worker of
/// speed 1 unless a stage is given.  Requires a valid input.
class CutModel {
 public:
  explicit CutModel(const PlannerInput& input);

  int32_t num_layers() const { return num_layers_; }
  int32_t num_stages() const { return num_stages_; }
  int64_t MemoryBytes(int32_t stage, int32_t first, int32_t end) const;
  /// What the worker of `stage` needs for its stages 0..stage.
  int64_t WorkerBytes(const Borders& borders, int32_t stage) const;
  /// The part of that over the memory limit; 0 if it fits.
  int64_t ExcessBytes(const Borders& borders, int32_t stage) const;
  /// The same of the worst worker, with all its stages.
  int64_t ExcessBytes(const Borders& borders) const;

  /// The state of a floor after stages 0..stage-1, for a search that adds stages one by one.
  struct Partial {
    int32_t stage = 0;     // the next one
    int32_t first = 0;     // its first layer
    bool trains = false;   // a stage before it is trainable
    double forward_s = 0;  // sums over the trainable stages so far
    double backward_s = 0;
    double max_forward_s = 0;
    double max_backward_s = 0;
    double boundary_optimize_s = 0;  // OPT of the first trainable stage
    double floor_s = 0;              // no plan with these stages has a faster step
  };
  /// Adds layers [partial.first, end) as the next stage.
  Partial Extend(const Partial& partial, int32_t end) const;
  /// Floor of every way to go on, >= partial.floor_s.
  double FloorOfRest(const Partial& partial) const;
  double Floor(const Borders& borders) const;

  /// Distinct cuts that are the best under some simple view of the schedule, and fit the memory;
  /// the most promising first. May be empty when memory is short.
  std::vector<Borders> Candidates() const;
  /// Cuts whose largest stage needs the least memory (exactly; O(stages * layers^2) at worst).
  Borders LeastMemory() const;

  /// The work of a step spread evenly over the workers, or over as many of the fastest as there are
  /// cores.
  double even_s() const { return even_s_; }
  /// The most that one layer takes in a step on the fastest worker.
  double heaviest_s() const { return heaviest_s_; }

 private:
  using Weight = std::function<double(int32_t stage, int32_t first, int32_t end)>;

  double Forward(int32_t stage, int32_t first, int32_t end) const {
    return (forward_[end] - forward_[first]) * inverse_speed_[stage];
  }
  double Backward(int32_t stage, int32_t first, int32_t end) const {
    return (backward_[end] - backward_[first]) * inverse_speed_[stage];
  }
  double Optimize(int32_t stage, int32_t first, int32_t end) const {
    return (optimize_[end] - optimize_[first]) * inverse_speed_[stage];
  }
  /// Memory without the buffers of the edges.
  int64_t LayerBytes(int32_t stage, int32_t first, int32_t end) const;
  /// What a frozen stage may be compared with when trainable ones are weighed by forward +
  /// backward.
  double FrozenWeight(int32_t stage, int32_t first, int32_t end, bool with_path) const;
  /// What no stage may exceed; both limits count per stage.
  struct Limits {
    double weight = 0;
    int64_t memory_bytes = 0;
  };
  bool Keeps(const Limits& limits, const Weight& weight, int32_t stage, int32_t first,
             int32_t end) const {
    return weight(stage, first, end) <= limits.weight &&
           MemoryBytes(stage, first, end) <= limits.memory_bytes;
  }
  bool FillFromFront(const Weight& weight, const Limits& limits, Borders* borders) const;
  bool FillFromBack(const Weight& weight, const Limits& limits, Borders* borders) const;
  void AddBalanced(const Weight& weight, std::vector<Borders>* found) const;
  /// The largest weight of the cuts where it is least; 0 if memory is short.
  double LeastLargest(const Weight& weight) const;
  void AddTwoPhaseCandidates(std::vector<Borders>* found) const;

  const int32_t num_layers_, num_stages_, num_workers_, num_microbatches_, frontier_;
  const bool two_phases_, run_ahead_;
  const int64_t memory_limit_bytes_;  // of a worker; the largest number for none
  double even_s_ = 0, heaviest_s_ = 0;
  // Prefix sums over layers, [num_layers + 1]; what the frontier saves is left out.
  std::vector<double> forward_, backward_, optimize_;
  std::vector<int64_t> fixed_bytes_, activation_bytes_;
  std::vector<int64_t> output_bytes_;  // [layer]
  std::vector<double> inverse_speed_;  // [stage]
  std::vector<double>
      speed_of_rest_;  // [stage] sum of the speeds of the workers of stages stage..S-1
  std::vector<double> fastest_of_rest_;       // [stage] the largest of them
  std::vector<int32_t> in_flight_, credits_;  // [stage]: of it; of the edge that comes in
};

}  // namespace smartpipe
