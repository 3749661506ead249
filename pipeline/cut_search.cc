#include "pipeline/cut_search.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/algorithm/container.h"

namespace smartpipe {
namespace {

constexpr double kTie = 1e-12;          // relative: sums in another order are not another time
constexpr int64_t kNodeCost = 4;        // budget of the bound of one stage
constexpr size_t kImprovedStarts = 10;  // candidates that are improved

}  // namespace

double CutSearch::StepSeconds(const Borders& borders) {
  const auto [known, is_new] = known_s_.try_emplace(borders, 0);
  if (!is_new) return known->second;
  const auto [step_s, cost] = simulate_(borders);
  budget_ -= cost;
  known->second = step_s;
  const bool faster = best_.empty() || step_s < best_s_ * (1 - kTie);
  const bool tie = !faster && step_s <= best_s_ * (1 + kTie);
  if (faster) best_s_ = step_s;
  if (faster || (tie && borders < best_)) best_ = borders;
  return step_s;
}

// Moves cuts i..j together by one layer: a layer travels from one stage to any other through all
// between them. Only cuts whose bound is below `step_s` are worth a try.
void CutSearch::AddMoves(const Borders& borders, double step_s, Moves* moves) {
  const int32_t num_stages = model_.num_stages();
  for (int32_t i = 1; i < num_stages; ++i) {
    for (int by : {-1, 1}) {
      Borders moved = borders;
      for (int32_t j = i; j < num_stages; ++j) {
        moved[j] += by;
        if (moved[i - 1] >= moved[i] || moved[j] >= moved[j + 1] || !model_.Fits(moved)) continue;
        budget_ -= kNodeCost * num_stages;
        const double bound = model_.Bound(moved);
        if (bound < step_s * (1 - kTie)) moves->emplace_back(bound, moved);
      }
    }
  }
}

bool CutSearch::TakeFirstBetter(Moves* moves, int64_t budget_left, Borders* borders,
                                double* step_s) {
  absl::c_sort(*moves);
  for (auto& [bound, moved] : *moves) {
    if (budget_ <= budget_left) return false;
    const double moved_s = StepSeconds(moved);
    if (moved_s >= *step_s * (1 - kTie)) continue;
    *borders = std::move(moved);
    *step_s = moved_s;
    return true;
  }
  return false;
}

void CutSearch::Improve(Borders borders, double step_s) {
  while (budget_ > 0) {
    Moves moves;
    AddMoves(borders, step_s, &moves);
    if (!TakeFirstBetter(&moves, 0, &borders, &step_s)) return;
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
    double step_s = best_s_;
    Moves singles, pairs;
    AddMoves(borders, step_s, &singles);
    for (const auto& [bound, moved] : singles) AddMoves(moved, step_s, &pairs);
    if (!TakeFirstBetter(&pairs, budget_left, &borders, &step_s)) return;
    Improve(borders, step_s);
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
    if (!model_.Fits(s, partial.first, end)) continue;
    const CutModel::Partial next = model_.Extend(partial, end);
    (*borders)[s + 1] = end;
    // A longer stage only raises its own part of the bound.
    if (next.bound_s > best_s_ * (1 + kTie)) return;
    if (model_.BoundOfRest(next) > best_s_ * (1 + kTie)) continue;
    if (last) {
      StepSeconds(*borders);
    } else {
      TryAll(next, borders);
    }
  }
}

Borders CutSearch::Run(const std::vector<Borders>& start) {
  const int64_t whole = budget_;
  std::vector<std::pair<double, Borders>> tried;
  for (const Borders& borders : start) {
    if (!tried.empty() && budget_ < whole * 3 / 4) break;
    tried.emplace_back(StepSeconds(borders), borders);
  }
  absl::c_sort(tried);
  for (size_t i = 0; i < std::min(tried.size(), kImprovedStarts); ++i) {
    Improve(tried[i].second, tried[i].first);
  }
  if (best_.empty()) return best_;
  ImproveByPairs();
  Borders borders(model_.num_stages() + 1, 0);
  TryAll(CutModel::Partial(), &borders);
  exhausted_ = budget_ > 0;
  return best_;
}

}  // namespace smartpipe
