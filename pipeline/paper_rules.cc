#include "pipeline/paper_rules.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <queue>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "services/base/limits.h"
#include "services/base/status_macros.h"

namespace smartpipe {
namespace {

using Nanos = int64_t;

// All work and all transfers one after the other: no shape takes longer, and sums stay whole.
constexpr double kTotalSecondsMax = 4e9;

absl::Status CheckRange(absl::string_view field, int32_t value, int32_t least, int32_t most) {
  if (least <= value && value <= most) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(field, " is ", value, ", not in ", least, "..", most));
}

absl::Status CheckSeconds(absl::string_view name, size_t index, std::initializer_list<double> times,
                          double* sum_s) {
  for (double seconds : times) {
    if (!std::isfinite(seconds) || seconds < 0) {
      return absl::InvalidArgumentError(absl::StrCat(name, "[", index, "] has a time of ", seconds,
                                                     " s; times are finite and not negative"));
    }
    *sum_s += seconds;
  }
  return absl::OkStatus();
}

absl::Status CheckInput(const PaperShape& shape, const std::vector<StageCost>& costs,
                        const std::vector<LinkCost>& links) {
  if (shape.schedule != "gpipe" && shape.schedule != "1f1b") {
    return absl::InvalidArgumentError(
        absl::StrCat("the paper has no schedule `", shape.schedule, "`, only gpipe and 1f1b"));
  }
  SP_RETURN_IF_ERROR(CheckRange("num_stages", shape.num_stages, 1, limits::kStagesMax));
  SP_RETURN_IF_ERROR(CheckRange("num_samples", shape.num_samples, 1, limits::kMicrobatchesMax));
  SP_RETURN_IF_ERROR(CheckRange("batch_size", shape.batch_size, 1, limits::kMicrobatchesMax));
  SP_RETURN_IF_ERROR(
      CheckRange("num_frozen_stages", shape.num_frozen_stages, 0, shape.num_stages - 1));
  if (costs.size() != static_cast<size_t>(shape.num_stages)) {
    return absl::InvalidArgumentError(
        absl::StrCat("there are ", costs.size(), " stage costs for ", shape.num_stages, " stages"));
  }
  if (!links.empty() && links.size() + 1 != costs.size()) {
    return absl::InvalidArgumentError(absl::StrCat("there are ", links.size(), " link costs for ",
                                                   shape.num_stages - 1, " edges"));
  }
  double sum_s = 0;
  for (size_t s = 0; s < costs.size(); ++s) {
    const StageCost& cost = costs[s];
    SP_RETURN_IF_ERROR(CheckSeconds(
        "costs", s, {cost.forward_s, cost.input_grad_s, cost.weight_grad_s, cost.optimize_s},
        &sum_s));
  }
  for (size_t e = 0; e < links.size(); ++e) {
    const LinkCost& link = links[e];
    SP_RETURN_IF_ERROR(
        CheckSeconds("links", e, {link.latency_s, link.forward_s, link.backward_s}, &sum_s));
  }
  if (sum_s * shape.num_samples <= kTotalSecondsMax) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("the work of ", shape.num_samples, " samples is ",
                                                 sum_s * shape.num_samples, " s; at most ",
                                                 kTotalSecondsMax, " s can be played"));
}

Nanos ToNanos(double seconds) { return std::llround(seconds * 1e9); }
double ToSeconds(Nanos nanos) { return static_cast<double>(nanos) / 1e9; }

// Plays by events: what ends, then what the stages that may have waited for it choose.
class Player {
 public:
  Player(const PaperShape& shape, const std::vector<StageCost>& costs,
         const std::vector<LinkCost>& links)
      : shape_(shape), gpipe_(shape.schedule == "gpipe"), links_(links), stages_(costs.size()) {
    for (size_t s = 0; s < costs.size(); ++s) {
      stages_[s].forward = ToNanos(costs[s].forward_s);
      stages_[s].backward = ToNanos(costs[s].input_grad_s + costs[s].weight_grad_s);
      stages_[s].optimize = ToNanos(costs[s].optimize_s);
    }
    stages_[0].num_activations = shape.num_samples;
    stages_.back().num_gradients = shape.num_samples;
    result_.trace.resize(costs.size());
    result_.busy_s.assign(costs.size(), 0);
  }

  SimulateResult Play() {
    std::vector<bool> may_choose(stages_.size(), true);
    for (Nanos now = 0;; now = events_.top().at) {
      while (!events_.empty() && events_.top().at == now) {
        const Event event = events_.top();
        events_.pop();
        Apply(event);
        may_choose[event.stage] = true;
        if (event.kind == Kind::kForwardEnd && event.stage > 0) may_choose[event.stage - 1] = true;
      }
      for (int32_t s = 0; s < shape_.num_stages; ++s) {
        if (may_choose[s]) Choose(s, now);
        may_choose[s] = false;
      }
      if (events_.empty()) break;
    }
    for (const auto& row : result_.trace) {
      if (!row.empty()) result_.makespan_s = std::max(result_.makespan_s, row.back().end_s);
    }
    result_.step_s = result_.makespan_s;
    return std::move(result_);
  }

 private:
  enum class Kind { kForwardEnd, kBackwardEnd, kActivation, kGradient, kFree };
  struct Event {
    Nanos at;
    int32_t stage;
    Kind kind;
    bool operator>(const Event& other) const { return at > other.at; }
  };
  struct Stage {
    Nanos forward = 0, backward = 0, optimize = 0;
    int32_t num_activations = 0, num_gradients = 0;  // arrived, of samples 0, 1, ...
    int32_t forwards_started = 0, forwards_ended = 0, backwards_started = 0;
    bool busy = false;
    Nanos down_free = 0, up_free = 0;  // of the links to the stages after and before
  };

  // Last sample of the batch, plus one.
  int32_t BatchEnd(int32_t sample) const {
    return std::min(shape_.num_samples, (sample / shape_.batch_size + 1) * shape_.batch_size);
  }

  void Apply(const Event& event) {
    Stage& stage = stages_[event.stage];
    switch (event.kind) {
      case Kind::kForwardEnd:
        ++stage.forwards_ended;
        stage.busy = false;
        break;
      case Kind::kBackwardEnd:
      case Kind::kFree:
        stage.busy = false;
        break;
      case Kind::kActivation:
        ++stage.num_activations;
        break;
      case Kind::kGradient:
        ++stage.num_gradients;
        break;
    }
  }

  bool MayForward(int32_t s) const {
    const Stage& stage = stages_[s];
    const int32_t sample = stage.forwards_started;
    if (sample >= stage.num_activations) return false;
    if (s < shape_.num_frozen_stages) {
      return s + 1 < shape_.num_frozen_stages ||
             sample - stages_[s + 1].forwards_ended < shape_.batch_size;
    }
    if (gpipe_) return stage.backwards_started >= sample / shape_.batch_size * shape_.batch_size;
    return sample - stage.backwards_started < std::min(shape_.num_stages - s, shape_.batch_size);
  }

  bool MayBackward(int32_t s) const {
    const Stage& stage = stages_[s];
    const int32_t sample = stage.backwards_started;
    if (s < shape_.num_frozen_stages || sample >= stage.forwards_ended) return false;
    if (sample >= stage.num_gradients) return false;
    return !gpipe_ || stage.forwards_ended >= BatchEnd(sample);
  }

  void Choose(int32_t s, Nanos now) {
    if (stages_[s].busy) return;
    const bool forward = MayForward(s), backward = MayBackward(s);
    if (forward && (gpipe_ || !backward)) {
      StartForward(s, now);
    } else if (backward) {
      StartBackward(s, now);
    }
  }

  void StartForward(int32_t s, Nanos now) {
    Stage& stage = stages_[s];
    const int32_t sample = stage.forwards_started++;
    stage.busy = true;
    const Nanos end = now + stage.forward;
    Record(Op::kForward, s, sample, now, end);
    events_.push({end, s, Kind::kForwardEnd});
    if (s + 1 == shape_.num_stages) return;
    const LinkCost link = links_.empty() ? LinkCost() : links_[s];
    stage.down_free = std::max(end, stage.down_free) + ToNanos(link.forward_s);
    events_.push({stage.down_free + ToNanos(link.latency_s), s + 1, Kind::kActivation});
  }

  void StartBackward(int32_t s, Nanos now) {
    Stage& stage = stages_[s];
    const int32_t sample = stage.backwards_started++;
    stage.busy = true;
    const Nanos end = now + stage.backward;
    Record(Op::kBackward, s, sample, now, end);
    if (s > shape_.num_frozen_stages) {
      const LinkCost link = links_.empty() ? LinkCost() : links_[s - 1];
      stage.up_free = std::max(end, stage.up_free) + ToNanos(link.backward_s);
      events_.push({stage.up_free + ToNanos(link.latency_s), s - 1, Kind::kGradient});
    }
    if (sample + 1 < BatchEnd(sample) || stage.optimize == 0) {
      events_.push({end, s, Kind::kBackwardEnd});
      return;
    }
    Record(Op::kOptimize, s, sample, end, end + stage.optimize);
    events_.push({end + stage.optimize, s, Kind::kFree});
  }

  void Record(Op op, int32_t s, int32_t sample, Nanos start, Nanos end) {
    const MicrobatchIndex microbatch(op == Op::kOptimize ? 0 : sample);
    result_.trace[s].push_back({{op, StageIndex(s), microbatch},
                                sample / shape_.batch_size,
                                ToSeconds(start),
                                ToSeconds(end)});
    result_.busy_s[s] += ToSeconds(end - start);
  }

  const PaperShape& shape_;
  const bool gpipe_;
  const std::vector<LinkCost>& links_;
  std::vector<Stage> stages_;
  std::priority_queue<Event, std::vector<Event>, std::greater<>> events_;
  SimulateResult result_;
};

}  // namespace

absl::StatusOr<SimulateResult> PlayPaperRules(const PaperShape& shape,
                                              const std::vector<StageCost>& costs,
                                              const std::vector<LinkCost>& links) {
  SP_RETURN_IF_ERROR(CheckInput(shape, costs, links));
  return Player(shape, costs, links).Play();
}

std::vector<RankUse> RankUses(const SimulateResult& result) {
  std::vector<RankUse> uses(result.trace.size());
  for (size_t rank = 0; rank < uses.size(); ++rank) {
    RankUse& use = uses[rank];
    use.busy_s = result.busy_s[rank];
    use.frozen = true;
    for (const TimedInstruction& timed : result.trace[rank]) {
      if (!IsCompute(timed.instruction.op)) continue;
      use.frozen &= timed.instruction.op == Op::kForward;
      use.end_s = timed.end_s;
    }
    if (!use.frozen) use.end_s = result.makespan_s;
    use.idle_s = std::max(0.0, use.end_s - use.busy_s);
  }
  return uses;
}

bool NeedsStaleWeights(const SimulateResult& result, int32_t num_frozen_stages) {
  for (const std::vector<TimedInstruction>& rank : result.trace) {
    int step = 0;
    for (const TimedInstruction& timed : rank) {
      if (timed.instruction.stage.value() < num_frozen_stages) continue;
      const Op op = timed.instruction.op;
      const bool backward = op == Op::kBackward || op == Op::kInputGrad || op == Op::kWeightGrad;
      if (backward && timed.step < step) return true;
      if (op == Op::kForward) step = timed.step;
    }
  }
  return false;
}

}  // namespace smartpipe
