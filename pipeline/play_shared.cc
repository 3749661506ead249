// Plays programs of ranks that share cores: what runs at the same time shares them evenly.
#include <algorithm>
#include <deque>
#include <functional>
#include <limits>
#include <queue>
#include <utility>
#include <vector>

#include "absl/algorithm/container.h"
#include "pipeline/play.h"

namespace smartpipe {
namespace {

constexpr double kNever = std::numeric_limits<double>::infinity();
// Ranks that run ahead stop early at the end: what is measured must not see it.
constexpr int kStepsBeyond = 3;
constexpr int kWarmUpMax = 16;  // longer ones cost more than they tell

// Each frozen stage takes a step or so until it is as far ahead as its credits let it.
int WarmUpSteps(const ScheduleShape& shape) {
  return std::min(2 * shape.num_frozen_stages, kWarmUpMax);
}

}  // namespace

int Play::num_shared_steps(int num_steps) const {
  return WarmUpSteps(shape_) + num_steps + kStepsBeyond;
}

// A rank goes on until it computes or waits; then time goes on to the next moment at which a
// computation ends or a message arrives. What computes advances at one rate for all, so that a
// computation ends when the work that each has done since the start reaches a number known when it
// began.
class Play::SharedClockwork {
 public:
  SharedClockwork(const Play& play, const Times& times, int num_steps, int num_cores)
      : play_(play),
        times_(times),
        num_steps_(num_steps + kStepsBeyond),
        num_cores_(num_cores),
        ranks_(play.shape_.num_ranks()),
        link_free_s_(times.latency_s.size(), 0),
        arrivals_(times.latency_s.size()),
        num_sent_(play.shape_.num_stages, 0),
        num_consumed_(play.shape_.num_stages, 0),
        step_end_s_(num_steps_, 0) {
    for (const Event& event : play.events_) {
      const Op op = event.instruction.op;
      // What reads the data waits for them.
      if (IsReceive(op)) continue;
      ranks_[event.rank].program.push_back(&event);
    }
  }

  /// [step] when its last rank ended it.
  const std::vector<double>& Run() {
    WakeAll();
    do {
      while (!awake_.empty()) {
        Rank& rank = ranks_[awake_.back()];
        awake_.pop_back();
        rank.awake = false;
        Advance(rank);
      }
    } while (PassTime());
    return step_end_s_;
  }

 private:
  struct Rank {
    std::vector<const Event*> program;
    size_t next = 0;
    int step = 0;
    bool computes = false;  // its event is `next`
    bool awake = false;     // is in awake_
  };
  using Moment = std::pair<double, int32_t>;  // and the rank
  using Moments = std::priority_queue<Moment, std::vector<Moment>, std::greater<>>;

  void Advance(Rank& rank) {
    while (!rank.computes && rank.step < num_steps_ && MayBegin(rank)) {
      const Event& event = *rank.program[rank.next];
      const Instruction& cell = event.instruction;
      if (IsCompute(cell.op)) {
        if (!TakeMessage(event)) return;
        const double cost_s = times_.cost_s[cell.stage.value()][static_cast<int>(cell.op)];
        rank.computes = true;
        if (cost_s > 0) return ends_.push({done_s_ + cost_s, event.rank});
        Finish(rank);
      } else {
        if (cell.op == Op::kSendForward && !HasCredit(event)) return;
        Send(event);
        Next(rank);
      }
    }
  }

  // Without run-ahead nobody begins a step before all have ended the one before.
  bool MayBegin(const Rank& rank) const {
    if (play_.run_ahead_ || rank.next > 0) return true;
    return absl::c_all_of(ranks_, [&](const Rank& other) { return other.step >= rank.step; });
  }

  bool TakeMessage(const Event& event) {
    if (event.awaits < 0) return true;
    std::deque<double>& arrivals = arrivals_[event.awaits];
    if (arrivals.empty() || arrivals.front() > now_s_) return false;
    arrivals.pop_front();
    return true;
  }

  bool HasCredit(const Event& event) {
    if (play_.credits_.empty()) return true;
    return num_sent_[event.channel] - num_consumed_[event.channel] < play_.credits_[event.channel];
  }

  void Send(const Event& event) {
    const int32_t channel = event.channel, stage = event.instruction.stage.value();
    const bool forward = event.instruction.op == Op::kSendForward;
    if (forward) ++num_sent_[channel];
    const double begin_s = std::max(now_s_, link_free_s_[channel]);
    link_free_s_[channel] = begin_s + times_.transfer_s[channel];
    const double arrival_s = link_free_s_[channel] + times_.latency_s[channel];
    arrivals_[channel].push_back(arrival_s);
    const int32_t receiver = play_.shape_.rank_of(forward ? stage + 1 : stage - 1);
    if (arrival_s <= now_s_) return Wake(receiver);
    wakes_.push({arrival_s, receiver});
  }

  void Finish(Rank& rank) {
    const Event& event = *rank.program[rank.next];
    if (play_.ReturnsCredit(event)) {
      ++num_consumed_[event.awaits];
      Wake(play_.shape_.rank_of(event.awaits));
    }
    rank.computes = false;
    Next(rank);
  }

  void Next(Rank& rank) {
    if (++rank.next < rank.program.size()) return;
    rank.next = 0;
    step_end_s_[rank.step] = std::max(step_end_s_[rank.step], now_s_);
    ++rank.step;
    if (!play_.run_ahead_) WakeAll();
  }

  void Wake(int32_t rank) {
    if (ranks_[rank].awake) return;
    ranks_[rank].awake = true;
    awake_.push_back(rank);
  }
  void WakeAll() {
    for (size_t rank = 0; rank < ranks_.size(); ++rank) Wake(static_cast<int32_t>(rank));
  }

  bool PassTime() {
    if (ends_.empty() && wakes_.empty()) return false;
    const double num_busy = static_cast<double>(ends_.size());
    const double rate = std::min(1.0, num_cores_ / std::max(num_busy, 1.0));
    const double end_s = ends_.empty() ? kNever : now_s_ + (ends_.top().first - done_s_) / rate;
    const double wake_s = wakes_.empty() ? kNever : wakes_.top().first;
    if (end_s <= wake_s) {
      now_s_ = end_s;
      done_s_ = ends_.top().first;
    } else {
      done_s_ += (wake_s - now_s_) * rate;
      now_s_ = wake_s;
    }
    while (!ends_.empty() && ends_.top().first <= done_s_ * (1 + 1e-12)) {
      const int32_t rank = ends_.top().second;
      ends_.pop();
      Finish(ranks_[rank]);
      Wake(rank);
    }
    while (!wakes_.empty() && wakes_.top().first <= now_s_) {
      Wake(wakes_.top().second);
      wakes_.pop();
    }
    return true;
  }

  const Play& play_;
  const Times& times_;
  const int num_steps_, num_cores_;
  std::vector<Rank> ranks_;
  std::vector<int32_t> awake_;  // ranks that may be able to go on
  double now_s_ = 0;
  double done_s_ = 0;                         // work of a rank that computed all the time
  Moments ends_;                              // of the computations under way, by done_s_
  Moments wakes_;                             // when messages arrive, by now_s_, at their receivers
  std::vector<double> link_free_s_;           // [channel]
  std::vector<std::deque<double>> arrivals_;  // [channel] of messages not yet read
  std::vector<int64_t> num_sent_, num_consumed_;  // [edge]
  std::vector<double> step_end_s_;
};

SimulateResult Play::RunShared(const std::vector<StageCost>& costs,
                               const std::vector<LinkCost>& links, int num_steps,
                               int num_cores) const {
  const Times times(shape_, costs, links);
  const int warm_up = WarmUpSteps(shape_);
  SharedClockwork clockwork(*this, times, warm_up + num_steps, num_cores);
  const std::vector<double>& ends_s = clockwork.Run();
  SimulateResult result;
  result.makespan_s = ends_s[num_steps - 1];
  result.step_s = (ends_s[warm_up + num_steps - 1] - ends_s[warm_up]) / std::max(num_steps - 1, 1);
  result.busy_s.assign(shape_.num_ranks(), 0);
  double work_s = 0;  // of a step
  for (const Event& event : events_) {
    if (!IsCompute(event.instruction.op)) continue;
    const double cost_s =
        times.cost_s[event.instruction.stage.value()][static_cast<int>(event.instruction.op)];
    work_s += cost_s;
    result.busy_s[event.rank] += num_steps * cost_s;
  }
  // What frozen ranks did ahead before the first step that counts is not free in the long run.
  result.step_s = std::max(result.step_s, work_s / num_cores);
  return result;
}

}  // namespace smartpipe
