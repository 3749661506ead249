// Internal to explain: what one interval's steps and instructions took.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <tuple>
#include <vector>

#include "cli/explain.h"
#include "cli/run_trace.h"

namespace smartpipe {

/// Middle of the values, mean of the two in the middle; 0 of nothing.
double Median(std::vector<double> values);

/// Measures the stretch that `*out` names (steps, plan) and fills its measured fields. Both outlive
/// it.
class Measurement {
 public:
  Measurement(const RunTrace& run, IntervalTime* out);
  /// False when no step counts; nothing is measured then.
  bool Measure();

  int num_frozen_stages() const { return num_frozen_stages_; }
  /// Compute of all workers in a step, with the optimizer: median.
  double busy_s() const { return busy_s_; }
  /// Compute of one worker in a step, without the optimizer: mean.
  double mean_busy_s(int rank) const { return mean_busy_s_[rank]; }

 private:
  // Step, edge, whether it is an activation, micro-batch.
  using MessageKey = std::tuple<int64_t, int, bool, int>;
  static MessageKey KeyOf(int64_t step, const Instruction& instruction);
  template <typename Function>
  void ForEachEvent(const std::set<int64_t>& steps, const Function& function) const;

  void TakeSpans();
  void TakeSteps();
  void TakeUses();
  void TakeCosts();
  void TakeLinks();
  void TakeBusy();
  bool IsHeldUp(int64_t step, const RunEvent& send) const;

  const RunTrace& run_;
  IntervalTime& out_;
  int num_stages_ = 1, num_frozen_stages_ = 0;
  std::map<int64_t, double> verdict_s_;    // [step] before it, the worker that waited longest
  std::set<int64_t> interrupted_;          // steps before which something else was done
  std::set<int64_t> steps_;                // that count
  std::vector<double> step_s_;             // their times without waiting for verdicts
  std::map<MessageKey, int64_t> used_ns_;  // when the instruction that reads a message ended
  double busy_s_ = 0;
  std::vector<double> mean_busy_s_;  // [rank]
};

}  // namespace smartpipe
