#include "pipeline/cut_search.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/algorithm/container.h"

namespace smartpipe {
namespace {

constexpr double kTie = 1e-12;          // relative: sums in another order are not another time
constexpr int64_t kNodeCost = 4;        // budget of the floor of one stage
constexpr size_t kImprovedStarts = 10;  // candidates that are improved

bool IsBetter(const Score& a, const Score& b) {
  if (a.excess_bytes != b.excess_bytes) return a.excess_bytes < b.excess_bytes;
  return a.step_s < b.step_s * (1 - kTie);
}

}  // namespace

Score CutSearch::ScoreOf(const Borders& borders) {
  const auto [known, is_new] = known_.try_emplace(borders);
  if (!is_new) return known->second;
  Score& score = known->second;
  score.excess_bytes = model_.ExcessBytes(borders);
  if (score.excess_bytes == 0) {
    const auto [step_s, cost] = simulate_(borders);
    budget_ -= cost;
    score.step_s = step_s;
  }
  const bool better = best_.empty() || IsBetter(score, best_score_);
  const bool tie = !better && !IsBetter(best_score_, score);
  if (better) best_score_ = score;
  if (better || (tie && borders < best_)) best_ = borders;
  return score;
}

// Moves cuts i..j together by one layer: a layer travels from one stage to any other through all
// between them. Only cuts whose floor is better than `score` are worth a try.
void CutSearch::AddMoves(const Borders& borders, const Score& score, Moves* moves) {
  const int32_t num_stages = model_.num_stages();
  for (int32_t i = 1; i < num_stages; ++i) {
    for (int by : {-1, 1}) {
      Borders moved = borders;
      for (int32_t j = i; j < num_stages; ++j) {
        moved[j] += by;
        if (moved[i - 1] >= moved[i] || moved[j] >= moved[j + 1]) continue;
        Score floor = {.excess_bytes = model_.ExcessBytes(moved)};
        if (floor.excess_bytes > score.excess_bytes) continue;
        budget_ -= kNodeCost * num_stages;
        if (floor.excess_bytes == 0) floor.step_s = model_.Floor(moved);
        if (IsBetter(floor, score)) moves->emplace_back(floor, moved);
      }
    }
  }
}

bool CutSearch::TakeFirstBetter(Moves* moves, int64_t budget_left, Borders* borders, Score* score) {
  absl::c_sort(*moves);
  for (auto& [floor, moved] : *moves) {
    if (budget_ <= budget_left) return false;
    const Score moved_score = ScoreOf(moved);
    if (!IsBetter(moved_score, *score)) continue;
    *borders = std::move(moved);
    *score = moved_score;
    return true;
  }
  return false;
}

void CutSearch::Improve(Borders borders, Score score) {
  while (budget_ > 0) {
    Moves moves;
    AddMoves(borders, score, &moves);
    if (!TakeFirstBetter(&moves, 0, &borders, &score)) return;
  }
}

// Two moves at once, where no single one helps; half of the budget, and only if all pairs can be
// looked at.
void CutSearch::ImproveByPairs() {
  const int64_t num_stages = model_.num_stages();
  const int64_t num_moves = num_stages * (num_stages - 1);
  const int64_t budget_left = budget_ / 2;
  while (budget_ - num_moves * num_moves * kNodeCost * num_stages > budget_left) {
    Borders borders = best_;
    Score score = best_score_;
    Moves singles, pairs;
    AddMoves(borders, score, &singles);
    for (const auto& [floor, moved] : singles) AddMoves(moved, score, &pairs);
    if (!TakeFirstBetter(&pairs, budget_left, &borders, &score)) return;
    Improve(borders, score);
  }
}

void CutSearch::TryAll(const CutModel::Partial& partial, Borders* borders) {
  const int32_t num_stages = model_.num_stages(), num_layers = model_.num_layers();
  const int32_t s = partial.stage;
  const bool last = s + 1 == num_stages;
  const int32_t end_max = num_layers - (num_stages - 1 - s);
  for (int32_t end = last ? num_layers : partial.first + 1; end <= end_max; ++end) {
    if (budget_ <= 0) return;
    budget_ -= kNodeCost;
    (*borders)[s + 1] = end;
    const int64_t excess_bytes = model_.ExcessBytes(*borders, s);
    if (excess_bytes > 0 && excess_bytes >= best_score_.excess_bytes) continue;
    const CutModel::Partial next = model_.Extend(partial, end);
    if (best_score_.excess_bytes == 0) {
      const double slowest_s = best_score_.step_s * (1 + kTie);
      // A longer stage only raises its own part of the floor.
      if (next.floor_s > slowest_s) return;
      if (model_.FloorOfRest(next) > slowest_s) continue;
    }
    if (last) {
      ScoreOf(*borders);
    } else {
      TryAll(next, borders);
    }
  }
}

Borders CutSearch::Run(const std::vector<Borders>& start) {
  const int64_t whole = budget_;
  std::vector<std::pair<Score, Borders>> tried;
  for (const Borders& borders : start) {
    if (!tried.empty() && budget_ < whole * 3 / 4) break;
    tried.emplace_back(ScoreOf(borders), borders);
  }
  absl::c_sort(tried);
  for (size_t i = 0; i < std::min(tried.size(), kImprovedStarts); ++i) {
    Improve(tried[i].second, tried[i].first);
  }
  ImproveByPairs();
  Borders borders(model_.num_stages() + 1, 0);
  TryAll(CutModel::Partial(), &borders);
  exhausted_ = budget_ > 0;
  return best_;
}

}  // namespace smartpipe
