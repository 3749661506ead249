// Internal to explain: what one interval's steps and instructions took.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <vector>

#include "cli/core_time.h"
#include "cli/critical_path.h"
#include "cli/explain.h"
#include "cli/run_trace.h"

namespace smartpipe {

/// Middle of the values, mean of the two in the middle; 0 of nothing.
double Median(std::vector<double> values);

/// Measures the stretch that `*out` names (steps, plan) and fills its measured fields. All three
/// outlive it. Compute counts in core seconds.
class Measurement {
 public:
  Measurement(const RunTrace& run, const CoreTime& core_time, IntervalTime* out);
  /// False when no step counts; nothing is measured then.
  bool Measure();

  int num_frozen_stages() const { return num_frozen_stages_; }
  /// Compute of all workers in a step, with the optimizer: median.
  double busy_s() const { return busy_s_; }
  /// Compute of one worker in a step, without the optimizer: mean.
  double mean_busy_s(int rank) const { return mean_busy_s_[rank]; }

 private:
  template <typename Function>
  void ForEachEvent(const Function& function) const;

  void TakeSpans();
  void TakeSteps();
  void TakeCosts();
  void TakeLinks();
  void TakeBusy();

  const RunTrace& run_;
  const CoreTime& core_time_;
  IntervalTime& out_;
  int num_stages_ = 1, num_frozen_stages_ = 0;
  const CriticalPath path_;
  std::set<int64_t> interrupted_;  // steps before which something else was done
  std::set<int64_t> steps_;        // that count
  std::vector<double> step_s_;     // their times without waiting for verdicts
  double busy_s_ = 0;
  std::vector<double> mean_busy_s_;  // [rank]
};

}  // namespace smartpipe
