// What a coordinator remembers of its verdicts, small enough to keep for the whole run.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "freeze_service/core/events.h"
#include "pipeline/plan.h"
#include "services/base/ids.h"

namespace smartpipe {

/// The newest verdict of each boundary, of whichever generation, without its statistics: those are
/// a number for each layer, and nothing is decided with them again. The log has them.
///
/// The first size() ones are in force. Those behind were given by an earlier generation, for
/// boundaries that have none in this one yet. A plain value.
/// Cost: about 0.5 KB for each verdict, and the plan of each epoch.  Test: coordinator_fuzz_test.cc
class VerdictHistory {
 public:
  int64_t size() const { return num_in_force_; }
  bool empty() const { return num_in_force_ == 0; }
  /// With those of earlier generations.
  int64_t num_decided() const { return static_cast<int64_t>(entries_.size()); }

  /// Puts `verdict` in force; those of later boundaries are of an earlier generation then.
  /// Requires a boundary in [0, num_decided()].
  void Add(const Verdict& verdict);

  // All require a boundary in [0, num_decided()).
  Step step(IntervalIndex boundary) const { return entry(boundary).step; }
  LayerIndex frontier(IntervalIndex boundary) const { return entry(boundary).frontier; }
  PlanEpoch plan_epoch(IntervalIndex boundary) const { return entry(boundary).plan_epoch; }
  const std::vector<LayerIndex>& cuts(IntervalIndex boundary) const {
    return epochs_.at(entry(boundary).plan_epoch).cuts;
  }
  bool stops(IntervalIndex boundary) const { return entry(boundary).stop; }
  const std::string& reason(IntervalIndex boundary) const { return entry(boundary).reason; }
  const std::string& frontier_reason(IntervalIndex boundary) const {
    return entry(boundary).frontier_reason;
  }
  /// How many layers change their owner there.
  int64_t num_moves(IntervalIndex boundary) const {
    return static_cast<int64_t>(entry(boundary).moves.size());
  }
  /// The verdict brought a new plan.
  bool has_plan(IntervalIndex boundary) const { return entry(boundary).has_plan; }
  /// The plan of an epoch that a verdict has brought; null = none has.
  const Plan* FindPlan(PlanEpoch epoch) const;

  /// All of it but `eta`, which is empty.
  Verdict at(IntervalIndex boundary) const;
  /// The last one in force. Requires !empty().
  IntervalIndex last() const { return IntervalIndex(num_in_force_ - 1); }

 private:
  struct Entry {  // as in Verdict
    Step step;
    LayerIndex frontier;
    bool has_plan = false;
    bool stop = false;
    bool checkpoint = false;
    PlanEpoch plan_epoch;
    std::string reason;
    std::string frontier_reason;
    std::vector<LayerMove> moves;
    int64_t moved_bytes = 0;
    double predicted_old_step_s = 0;
    double predicted_step_s = 0;
    double even_step_s = 0;
  };
  struct Epoch {
    std::vector<LayerIndex> cuts;
    std::optional<Plan> plan;  // nothing = a generation started with it
  };

  const Entry& entry(IntervalIndex boundary) const { return entries_[boundary.value()]; }

  std::deque<Entry> entries_;  // [boundary]
  int64_t num_in_force_ = 0;
  std::map<PlanEpoch, Epoch> epochs_;
};

}  // namespace smartpipe
