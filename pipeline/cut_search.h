// Internal to pipeline/: finds the cuts with the least simulated step time.
#pragma once

#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "pipeline/cut_model.h"

namespace smartpipe {

/// How good cuts are: what exceeds the memory limit counts first, then time.
struct Score {
  int64_t excess_bytes = 0;
  double step_s = 0;  // simulated; 0 where memory is short
  friend auto operator<=>(const Score&, const Score&) = default;
};

/// Starts from the model's candidates, improves the best by moving groups of neighbouring cuts and
/// pairs of groups, then goes through all cuts that a floor does not exclude, for as long as
/// the budget lasts. Threads: pure.
class CutSearch {
 public:
  struct Played {
    double step_s = 0;  // simulated step time
    int64_t cost = 0;   // what that takes from the budget, in played instructions
  };
  /// Called only for cuts that fit the memory.
  using Simulate = std::function<Played(const Borders&)>;

  CutSearch(const CutModel& model, Simulate simulate, int64_t budget)
      : model_(model), simulate_(std::move(simulate)), budget_(budget) {}

  /// `start`: at least one; the first is always tried, however small the budget. The result fits
  /// the memory if best().excess_bytes is 0.
  Borders Run(const std::vector<Borders>& start);
  const Score& best() const { return best_score_; }
  /// True when every cut was tried or excluded: the result is the optimum.
  bool exhausted() const { return exhausted_; }

 private:
  Score ScoreOf(const Borders& borders);
  using Moves = std::vector<std::pair<Score, Borders>>;  // with their floors
  void AddMoves(const Borders& borders, const Score& score, Moves* moves);
  bool TakeFirstBetter(Moves* moves, int64_t budget_left, Borders* borders, Score* score);
  void Improve(Borders borders, Score score);
  void ImproveByPairs();
  void TryAll(const CutModel::Partial& partial, Borders* borders);

  const CutModel& model_;
  const Simulate simulate_;
  int64_t budget_;
  absl::flat_hash_map<Borders, Score> known_;
  Borders best_;
  Score best_score_;
  bool exhausted_ = false;
};

}  // namespace smartpipe
