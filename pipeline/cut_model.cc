#include "pipeline/cut_model.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <utility>

#include "absl/algorithm/container.h"

namespace smartpipe {
namespace {

constexpr int kBisections = 40;
constexpr int kForwardLimits = 16;
constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr int64_t kNoLimit = std::numeric_limits<int64_t>::max();

}  // namespace

Borders ToBorders(const std::vector<LayerIndex>& cuts, int32_t num_layers) {
  Borders borders = {0};
  for (LayerIndex cut : cuts) borders.push_back(cut.value());
  borders.push_back(num_layers);
  return borders;
}

std::vector<LayerIndex> ToCuts(const Borders& borders) {
  std::vector<LayerIndex> cuts;
  for (size_t s = 1; s + 1 < borders.size(); ++s) cuts.emplace_back(borders[s]);
  return cuts;
}

CutModel::CutModel(const PlannerInput& input)
    : num_layers_(static_cast<int32_t>(input.layers.size())),
      num_stages_(input.num_stages),
      num_workers_(input.num_workers()),
      num_microbatches_(input.num_microbatches),
      frontier_(input.frontier.value()),
      two_phases_(TraitsOf(input.schedule)->two_phases),
      run_ahead_(input.run_ahead),
      memory_limit_bytes_(input.memory_limit_bytes > 0 ? input.memory_limit_bytes : kNoLimit),
      forward_(1, 0),
      backward_(1, 0),
      optimize_(1, 0),
      fixed_bytes_(1, 0),
      activation_bytes_(1, 0) {
  for (int32_t i = 0; i < num_layers_; ++i) {
    const LayerCost& layer = input.layers[i];
    const bool trains = i >= frontier_;
    const double input_grad_s = i == frontier_ ? 0 : layer.input_grad_s;
    forward_.push_back(forward_.back() + layer.forward_s);
    backward_.push_back(backward_.back() + (trains ? input_grad_s + layer.weight_grad_s : 0));
    optimize_.push_back(optimize_.back() + (trains ? layer.optimize_s : 0));
    const int64_t fixed = trains ? layer.state_bytes + layer.param_bytes : layer.param_bytes;
    fixed_bytes_.push_back(fixed_bytes_.back() + fixed);
    activation_bytes_.push_back(activation_bytes_.back() + (trains ? layer.activation_bytes : 0));
    output_bytes_.push_back(layer.output_bytes);
  }
  speed_of_rest_.assign(num_stages_ + 1, 0);
  fastest_of_rest_.assign(num_stages_ + 1, 0);
  inverse_speed_.assign(num_stages_, 1);
  for (int32_t s = num_stages_ - 1; s >= 0; --s) {
    const double speed = input.stage_speed(s);
    inverse_speed_[s] = 1 / speed;
    // Each worker counts once, with the last of its stages.
    const bool counted = s + input.num_workers() < num_stages_;
    speed_of_rest_[s] = speed_of_rest_[s + 1] + (counted ? 0 : speed);
    fastest_of_rest_[s] = std::max(fastest_of_rest_[s + 1], speed);
  }
  std::vector<double> speeds;
  for (int32_t w = 0; w < num_workers_; ++w) speeds.push_back(input.stage_speed(w));
  absl::c_sort(speeds, std::greater<>());
  if (input.shares_cores()) speeds.resize(input.num_cores);
  even_s_ = (num_microbatches_ * (forward_.back() + backward_.back()) + optimize_.back()) /
            absl::c_accumulate(speeds, 0.0);
  for (int32_t i = 0; i < num_layers_; ++i) {
    const double work_s =
        num_microbatches_ * (forward_[i + 1] - forward_[i] + backward_[i + 1] - backward_[i]) +
        optimize_[i + 1] - optimize_[i];
    heaviest_s_ = std::max(heaviest_s_, work_s / fastest_of_rest_[0]);
  }
  const ScheduleShape shape = input.shape(0);
  credits_ = DefaultCredits(shape, input.schedule);
  credits_.insert(credits_.begin(), 0);
  in_flight_.assign(num_stages_, num_microbatches_);
  if (auto compute = Compile(shape, input.schedule); compute.ok()) {
    in_flight_ = PeakInFlight(shape, *compute);
  }
}

int64_t CutModel::LayerBytes(int32_t stage, int32_t first, int32_t end) const {
  return fixed_bytes_[end] - fixed_bytes_[first] +
         in_flight_[stage] * (activation_bytes_[end] - activation_bytes_[first]);
}

int64_t CutModel::MemoryBytes(int32_t stage, int32_t first, int32_t end) const {
  int64_t bytes = LayerBytes(stage, first, end);
  // The stage before an edge is frozen exactly if it ends at or below the frontier.
  auto credits = [this](int32_t receiver, int32_t layer) {
    return run_ahead_ && layer <= frontier_ ? num_microbatches_ : credits_[receiver];
  };
  if (stage > 0) {
    // Receive buffers; over a trainable edge as many gradients are under way.
    const int32_t buffers = credits(stage, first) * (first <= frontier_ ? 1 : 2);
    bytes += buffers * output_bytes_[first - 1];
  }
  if (stage + 1 < num_stages_) {
    // What a trainable stage sends is part of its activations, but it has receive buffers for
    // gradients. A frozen one has outputs under way and one that waits for its credit.
    const int32_t buffers = credits(stage + 1, end) + (end <= frontier_ ? 1 : 0);
    bytes += buffers * output_bytes_[end - 1];
  }
  return bytes;
}

int64_t CutModel::WorkerBytes(const Borders& borders, int32_t stage) const {
  int64_t bytes = 0;
  for (int32_t s = stage; s >= 0; s -= num_workers_) {
    bytes += MemoryBytes(s, borders[s], borders[s + 1]);
  }
  return bytes;
}

int64_t CutModel::ExcessBytes(const Borders& borders, int32_t stage) const {
  if (memory_limit_bytes_ == kNoLimit) return 0;
  return std::max<int64_t>(0, WorkerBytes(borders, stage) - memory_limit_bytes_);
}

int64_t CutModel::ExcessBytes(const Borders& borders) const {
  int64_t most = 0;
  for (int32_t s = num_stages_ - num_workers_; s < num_stages_; ++s) {
    most = std::max(most, ExcessBytes(borders, s));
  }
  return most;
}

// Why these are floors. A frozen stage works M forwards per step. A trainable stage s cannot start
// a step before its first micro-batch came down from the boundary stage (the first trainable one),
// and the boundary stage cannot start the next step before the last gradient came back up from s
// and its own optimizer step ended; in between s does all its work. GPipe moreover lets no backward
// start before the last forward of the last stage.
CutModel::Partial CutModel::Extend(const Partial& partial, int32_t end) const {
  const int32_t s = partial.stage, first = partial.first;
  const double f = Forward(s, first, end), b = Backward(s, first, end);
  const double optimize = Optimize(s, first, end);
  Partial next = partial;
  next.stage = s + 1;
  next.first = end;
  next.floor_s = std::max(next.floor_s, num_microbatches_ * (f + b) + optimize);
  if (end <= frontier_) return next;
  if (!partial.trains) {
    next.trains = true;
    next.boundary_optimize_s = optimize;
  }
  next.floor_s = std::max(next.floor_s, partial.forward_s + partial.backward_s +
                                            num_microbatches_ * (f + b) + next.boundary_optimize_s);
  next.forward_s += f;
  next.backward_s += b;
  next.max_forward_s = std::max(next.max_forward_s, f);
  next.max_backward_s = std::max(next.max_backward_s, b);
  if (two_phases_) {
    next.floor_s = std::max(
        next.floor_s, next.forward_s + next.backward_s + next.boundary_optimize_s +
                          (num_microbatches_ - 1) * (next.max_forward_s + next.max_backward_s));
  }
  return next;
}

double CutModel::FloorOfRest(const Partial& partial) const {
  if (partial.stage == num_stages_) return partial.floor_s;
  const double f = forward_.back() - forward_[partial.first];
  const double b = backward_.back() - backward_[partial.first];
  const double speed = speed_of_rest_[partial.stage];
  const double path = partial.trains ? partial.forward_s + partial.backward_s : 0;
  double floor = std::max(partial.floor_s, path + num_microbatches_ * (f + b) / speed);
  if (two_phases_ && partial.trains) {
    const double fastest = fastest_of_rest_[partial.stage];
    floor = std::max(floor,
                     path + (f + b) / fastest + partial.boundary_optimize_s +
                         (num_microbatches_ - 1) * (std::max(partial.max_forward_s, f / speed) +
                                                    std::max(partial.max_backward_s, b / speed)));
  }
  return floor;
}

double CutModel::Floor(const Borders& borders) const {
  Partial partial;
  for (int32_t s = 0; s < num_stages_; ++s) partial = Extend(partial, borders[s + 1]);
  return partial.floor_s;
}

// Each stage takes as many layers as the limit allows; as weights grow with the range, no other way
// fits if this does not. Every later stage keeps one layer.
bool CutModel::FillFromFront(const Weight& weight, const Limits& limits, Borders* borders) const {
  borders->assign(num_stages_ + 1, 0);
  for (int32_t s = 0; s < num_stages_; ++s) {
    const int32_t first = (*borders)[s];
    auto fits = [&](int32_t end) { return Keeps(limits, weight, s, first, end); };
    if (!fits(first + 1)) return false;
    int32_t good = first + 1, end = num_layers_ - (num_stages_ - 1 - s);
    while (good < end) {
      const int32_t middle = (good + end + 1) / 2;
      if (fits(middle)) {
        good = middle;
      } else {
        end = middle - 1;
      }
    }
    (*borders)[s + 1] = good;
  }
  return borders->back() == num_layers_;
}

bool CutModel::FillFromBack(const Weight& weight, const Limits& limits, Borders* borders) const {
  borders->assign(num_stages_ + 1, num_layers_);
  for (int32_t s = num_stages_ - 1; s >= 0; --s) {
    const int32_t end = (*borders)[s + 1];
    auto fits = [&](int32_t first) { return Keeps(limits, weight, s, first, end); };
    if (!fits(end - 1)) return false;
    int32_t first = s, good = end - 1;
    while (first < good) {
      const int32_t middle = (first + good) / 2;
      if (fits(middle)) {
        good = middle;
      } else {
        first = middle + 1;
      }
    }
    (*borders)[s] = good;
  }
  return borders->front() == 0;
}

// The cuts with the least largest weight, filled from the front and from the back: with the whole
// memory of its worker for each stage, if the sums happen to fit, and with an even part of it.
void CutModel::AddBalanced(const Weight& weight, std::vector<Borders>* found) const {
  double most = 0;
  for (int32_t s = 0; s < num_stages_; ++s) most = std::max(most, weight(s, 0, num_layers_));
  auto add = [&](const Borders& borders) {
    if (ExcessBytes(borders) == 0) found->push_back(borders);
  };
  const int32_t stages_per_worker = num_stages_ / num_workers_;
  for (const int32_t part : {1, stages_per_worker}) {
    Limits limits = {most, memory_limit_bytes_ / part};
    Borders borders, best;
    if (!FillFromFront(weight, limits, &best)) continue;
    double low = 0, high = most;
    for (int i = 0; i < kBisections; ++i) {
      limits.weight = (low + high) / 2;
      if (FillFromFront(weight, limits, &borders)) {
        high = limits.weight;
        best = borders;
      } else {
        low = limits.weight;
      }
    }
    add(best);
    limits.weight = high;
    if (FillFromBack(weight, limits, &borders)) add(borders);
    if (memory_limit_bytes_ == kNoLimit || stages_per_worker == 1) return;
  }
}

double CutModel::LeastLargest(const Weight& weight) const {
  std::vector<Borders> balanced;
  AddBalanced(weight, &balanced);
  double largest = 0;
  for (int32_t s = 0; !balanced.empty() && s < num_stages_; ++s) {
    largest = std::max(largest, weight(s, balanced[0][s], balanced[0][s + 1]));
  }
  return largest;
}

// Two phases cost the largest forward and the largest backward: the best backward under each limit
// of the forward.
void CutModel::AddTwoPhaseCandidates(std::vector<Borders>* found) const {
  // The limit lies between what the trainable layers need if the frozen ones take but one stage,
  // and what all need.
  auto forward = [&](int32_t s, int32_t first, int32_t end) { return Forward(s, first, end); };
  auto trainable = [&](int32_t s, int32_t first, int32_t end) {
    return end <= frontier_ ? 0 : Forward(s, std::max(first, frontier_), end);
  };
  const double most = 4 * LeastLargest(forward);
  if (!(most > 0)) return;
  const double least = std::max(LeastLargest(trainable), most * 1e-3);
  for (int i = 0; i <= kForwardLimits; ++i) {
    const double limit = least * std::pow(most / least, static_cast<double>(i) / kForwardLimits);
    for (const bool with_path : {false, true}) {
      AddBalanced(
          [&](int32_t s, int32_t first, int32_t end) {
            // A frozen stage knows no barrier: it has the time of both.
            if (end <= frontier_) {
              return std::max(0.0, FrozenWeight(s, first, end, with_path) - limit);
            }
            return Forward(s, first, end) > limit ? kInfinity : Backward(s, first, end);
          },
          found);
    }
  }
}

// A step takes about M - 1 times the largest trainable stage and, once, the way through all of
// them; a frozen stage may take the M-th part of that.
double CutModel::FrozenWeight(int32_t stage, int32_t first, int32_t end, bool with_path) const {
  const double forward_s = Forward(stage, first, end);
  if (!with_path || num_microbatches_ == 1) return forward_s;
  const double way_s =
      (forward_.back() - forward_[frontier_] + backward_.back()) * num_workers_ / speed_of_rest_[0];
  return std::max(0.0, num_microbatches_ * forward_s - way_s) / (num_microbatches_ - 1);
}

std::vector<Borders> CutModel::Candidates() const {
  std::vector<Borders> found;
  for (double share : {0.5, 0.3, 0.7, 0.1, 0.9, 1.0}) {
    for (const bool with_path : {false, true}) {
      if (with_path && frontier_ == 0) continue;
      AddBalanced(
          [&](int32_t s, int32_t first, int32_t end) {
            if (end <= frontier_) return FrozenWeight(s, first, end, with_path);
            return 2 * share * Forward(s, first, end) + 2 * (1 - share) * Backward(s, first, end);
          },
          &found);
    }
  }
  // With the way down to the stage and back up, which later stages wait for.
  for (double weight : {1.0, 0.5, 2.0}) {
    AddBalanced(
        [&](int32_t s, int32_t first, int32_t end) {
          const int32_t from = std::min(frontier_, first);
          const double way = Forward(s, from, first) + Backward(s, from, first);
          const double path = first > frontier_ ? way : 0;
          return weight * path +
                 num_microbatches_ * (Forward(s, first, end) + Backward(s, first, end));
        },
        &found);
  }
  if (two_phases_) AddTwoPhaseCandidates(&found);
  std::vector<std::pair<double, Borders>> ranked;
  for (Borders& borders : found) ranked.emplace_back(Floor(borders), std::move(borders));
  absl::c_sort(ranked);
  ranked.erase(std::unique(ranked.begin(), ranked.end()), ranked.end());
  std::vector<Borders> candidates;
  for (auto& [floor, borders] : ranked) candidates.push_back(std::move(borders));
  return candidates;
}

Borders CutModel::LeastMemory() const {
  // worst[s][end]: least largest memory of stages 0..s that hold layers [0, end); from[s][end]:
  // first layer of s.
  std::vector<std::vector<int64_t>> worst(num_stages_,
                                          std::vector<int64_t>(num_layers_ + 1, kNoLimit));
  std::vector<std::vector<int32_t>> from(num_stages_, std::vector<int32_t>(num_layers_ + 1, 0));
  for (int32_t end = 1; end <= num_layers_; ++end) worst[0][end] = MemoryBytes(0, 0, end);
  for (int32_t s = 1; s < num_stages_; ++s) {
    for (int32_t end = s + 1; end <= num_layers_; ++end) {
      for (int32_t first = end - 1; first >= s; --first) {
        // What the layers alone need grows with each more; only the buffers of the edges do not.
        if (LayerBytes(s, first, end) > worst[s][end]) break;
        const int64_t bytes = std::max(worst[s - 1][first], MemoryBytes(s, first, end));
        if (bytes > worst[s][end]) continue;
        worst[s][end] = bytes;
        from[s][end] = first;
      }
    }
  }
  Borders borders(num_stages_ + 1, num_layers_);
  for (int32_t s = num_stages_ - 1; s >= 0; --s) borders[s] = s == 0 ? 0 : from[s][borders[s + 1]];
  return borders;
}

}  // namespace smartpipe
