// Internal to pipeline/: finds the cuts with the least simulated step time.
#pragma once

#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "pipeline/cut_model.h"

namespace smartpipe {

/// Starts from the model's candidates, improves the best by moving groups of neighbouring cuts and
/// pairs of groups, then goes through all cuts that a lower bound does not exclude, for as long as
/// the budget lasts. Threads: pure.
class CutSearch {
 public:
  struct Played {
    double step_s = 0;  // simulated step time
    int64_t cost = 0;   // what that takes from the budget, in played instructions
  };
  using Simulate = std::function<Played(const Borders&)>;

  CutSearch(const CutModel& model, Simulate simulate, int64_t budget)
      : model_(model), simulate_(std::move(simulate)), budget_(budget) {}

  /// `start`: more cuts to begin with (fitting the memory); one is always tried, however small the
  /// budget. An empty result means that there was no start at all.
  Borders Run(const std::vector<Borders>& start);
  double best_s() const { return best_s_; }
  /// True when every cut was tried or excluded: the result is the optimum.
  bool exhausted() const { return exhausted_; }

 private:
  double StepSeconds(const Borders& borders);
  using Moves = std::vector<std::pair<double, Borders>>;  // with their bounds
  void AddMoves(const Borders& borders, double step_s, Moves* moves);
  bool TakeFirstBetter(Moves* moves, int64_t budget_left, Borders* borders, double* step_s);
  void Improve(Borders borders, double step_s);
  void ImproveByPairs();
  void TryAll(const CutModel::Partial& partial, Borders* borders);

  const CutModel& model_;
  const Simulate simulate_;
  int64_t budget_;
  absl::flat_hash_map<Borders, double> known_s_;
  Borders best_;
  double best_s_ = 0;
  bool exhausted_ = false;
};

}  // namespace smartpipe
