#include "pipeline/play.h"

#include <algorithm>
#include <array>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "services/base/status_macros.h"

namespace smartpipe {
namespace {

// What brings the data that F, B or I reads.
Op ReceiveFor(Op op) { return op == Op::kForward ? Op::kRecvForward : Op::kRecvBackward; }

}  // namespace

absl::Status CellError(const std::vector<Program>& programs, int rank, int index,
                       absl::string_view what) {
  const Program& program = programs[rank];
  const bool inside = index < static_cast<int>(program.size());
  return absl::FailedPreconditionError(
      absl::StrCat("rank ", rank, ", ",
                   inside ? absl::StrCat("cell ", index, " (", Format(program[index]), ")") : "end",
                   ": ", what, "\n", FormatGrid(programs, rank, index)));
}

absl::Status CheckCells(const ScheduleShape& shape, const std::vector<Program>& programs) {
  SP_RETURN_IF_ERROR(ValidateShape(shape));
  const int num_ranks = shape.num_ranks();
  if (static_cast<int>(programs.size()) != num_ranks) {
    return absl::FailedPreconditionError(
        absl::StrCat("there are ", programs.size(), " programs for ", num_ranks, " ranks"));
  }
  for (int rank = 0; rank < num_ranks; ++rank) {
    for (int i = 0; i < static_cast<int>(programs[rank].size()); ++i) {
      const Instruction& cell = programs[rank][i];
      const int32_t s = cell.stage.value(), m = cell.microbatch.value();
      if (s < 0 || s >= shape.num_stages) {
        return CellError(programs, rank, i,
                         absl::StrCat("there are ", shape.num_stages, " stages"));
      }
      if (shape.rank_of(s) != rank) {
        return CellError(programs, rank, i,
                         absl::StrCat("stage ", s, " belongs to rank ", shape.rank_of(s)));
      }
      if (m < 0 || m >= (HasMicrobatch(cell.op) ? shape.num_microbatches : 1)) {
        return CellError(programs, rank, i,
                         absl::StrCat("there are ", shape.num_microbatches, " micro-batches"));
      }
      const bool to_next = cell.op == Op::kSendForward || cell.op == Op::kRecvBackward;
      if (IsCompute(cell.op)) continue;
      const int32_t other = to_next ? s + 1 : s - 1;
      if (other < 0 || other >= shape.num_stages || shape.rank_of(other) == rank) {
        return CellError(programs, rank, i, "there is no edge to another rank");
      }
    }
  }
  return absl::OkStatus();
}

int32_t ChannelOf(const ScheduleShape& shape, const Instruction& instruction) {
  const int32_t s = instruction.stage.value();
  switch (instruction.op) {
    case Op::kSendForward:
      return s;
    case Op::kRecvForward:
      return s - 1;
    case Op::kSendBackward:
      return shape.num_stages - 1 + s - 1;
    case Op::kRecvBackward:
      return shape.num_stages - 1 + s;
    default:
      return -1;
  }
}

Instruction PeerOf(const Instruction& instruction) {
  const StageIndex s = instruction.stage;
  switch (instruction.op) {
    case Op::kSendForward:
      return {Op::kRecvForward, s + 1, instruction.microbatch};
    case Op::kRecvForward:
      return {Op::kSendForward, s - 1, instruction.microbatch};
    case Op::kSendBackward:
      return {Op::kRecvBackward, s - 1, instruction.microbatch};
    case Op::kRecvBackward:
      return {Op::kSendBackward, s + 1, instruction.microbatch};
    default:
      return instruction;
  }
}

// Finds the order: every rank goes on as far as it can, in turns, until all are at their end or
// none can move.
class PlayMaker {
 public:
  PlayMaker(const ScheduleShape& shape, const std::vector<Program>& programs, Play* play)
      : shape_(shape),
        programs_(programs),
        play_(*play),
        next_(programs.size(), 0),
        sent_(2 * shape.num_stages),
        num_received_(2 * shape.num_stages, 0),
        num_consumed_(shape.num_stages, 0) {}

  absl::Status Make() {
    for (bool moved = true; moved;) {
      moved = false;
      for (int rank = 0; rank < static_cast<int>(programs_.size()); ++rank) {
        SP_ASSIGN_OR_RETURN(const bool rank_moved, Advance(rank));
        moved |= rank_moved;
      }
    }
    for (size_t rank = 0; rank < programs_.size(); ++rank) {
      if (next_[rank] < static_cast<int>(programs_[rank].size())) return Deadlock();
    }
    for (const auto& sent : sent_) play_.num_sent_.push_back(static_cast<int32_t>(sent.size()));
    return CheckAllReceived();
  }

 private:
  absl::StatusOr<bool> Advance(int rank) {
    bool moved = false;
    while (next_[rank] < static_cast<int>(programs_[rank].size())) {
      const Instruction& cell = programs_[rank][next_[rank]];
      Play::Event event{.instruction = cell, .rank = rank, .channel = ChannelOf(shape_, cell)};
      if (IsCompute(cell.op)) {
        event.awaits = AwaitedChannel(cell);
        if (play_.ReturnsCredit(event)) ++num_consumed_[event.awaits];
      } else if (play_.send_mode_ == SendMode::kRendezvous) {
        if (!CanMeet(cell, &event)) break;
        ++next_[event.peer_rank];
      } else if (IsSend(cell.op)) {
        if (!CanSend(&event)) break;
        sent_[event.channel].push_back(cell.microbatch);
      } else {
        if (!CanReceive(event)) break;
        SP_RETURN_IF_ERROR(CheckOrder(rank, event));
      }
      play_.events_.push_back(event);
      ++next_[rank];
      moved = true;
    }
    return moved;
  }

  // Of the message that a buffered run waits for when its data are used; -1 = none.
  int32_t AwaitedChannel(const Instruction& cell) const {
    const int32_t s = cell.stage.value();
    const bool forward = cell.op == Op::kForward;
    const int32_t other = forward ? s - 1 : s + 1;
    if (play_.send_mode_ != SendMode::kBuffered || other < 0 || other >= shape_.num_stages)
      return -1;
    if (!forward && cell.op != Op::kBackward && cell.op != Op::kInputGrad) return -1;
    if (shape_.rank_of(other) == shape_.rank_of(s)) return -1;
    return ChannelOf(shape_, {ReceiveFor(cell.op), cell.stage, cell.microbatch});
  }

  // Both ends of the message stand at it now. Recorded once, as the send.
  bool CanMeet(const Instruction& cell, Play::Event* event) const {
    if (!IsSend(cell.op)) return false;  // its sender comes by
    const Instruction peer = PeerOf(cell);
    const int peer_rank = shape_.rank_of(peer.stage.value());
    const Program& program = programs_[peer_rank];
    event->peer_rank = peer_rank;
    return next_[peer_rank] < static_cast<int>(program.size()) && program[next_[peer_rank]] == peer;
  }

  bool CanSend(Play::Event* event) const {
    if (event->instruction.op != Op::kSendForward || play_.credits_.empty()) return true;
    const int32_t edge = event->channel;
    event->send_index = static_cast<int32_t>(sent_[edge].size());
    return event->send_index - num_consumed_[edge] < play_.credits_[edge];
  }

  bool CanReceive(const Play::Event& event) const {
    return num_received_[event.channel] < static_cast<int>(sent_[event.channel].size());
  }

  absl::Status CheckOrder(int rank, const Play::Event& event) {
    const MicrobatchIndex arrived = sent_[event.channel][num_received_[event.channel]++];
    if (arrived == event.instruction.microbatch) return absl::OkStatus();
    return CellError(programs_, rank, next_[rank],
                     absl::StrCat("micro-batch ", arrived.value(), " was sent first"));
  }

  absl::Status Deadlock() const {
    std::vector<std::string> waiting;
    std::vector<int> marks(programs_.size(), -1);
    for (size_t rank = 0; rank < programs_.size(); ++rank) {
      if (next_[rank] == static_cast<int>(programs_[rank].size())) continue;
      marks[rank] = next_[rank];
      waiting.push_back(absl::StrCat("rank ", rank, " at cell ", next_[rank], " (",
                                     Format(programs_[rank][next_[rank]]), ")"));
    }
    return absl::FailedPreconditionError(
        absl::StrCat("deadlock: these wait for ever: ", absl::StrJoin(waiting, ", "), "\n",
                     FormatGrid(programs_, marks)));
  }

  absl::Status CheckAllReceived() const {
    if (play_.send_mode_ == SendMode::kRendezvous) return absl::OkStatus();
    for (size_t channel = 0; channel < sent_.size(); ++channel) {
      const int num_sent = static_cast<int>(sent_[channel].size());
      const bool counted =
          !play_.credits_.empty() && channel < play_.credits_.size() && num_sent > 0;
      const int num_used = counted ? num_consumed_[channel] : num_sent;
      if (num_received_[channel] == num_sent && num_used == num_sent) continue;
      const bool forward = static_cast<int>(channel) < shape_.num_stages - 1;
      const int from = static_cast<int>(channel) - (forward ? 0 : shape_.num_stages - 2);
      return absl::FailedPreconditionError(
          absl::StrCat("edge ", from, " -> ", forward ? from + 1 : from - 1, " carries ", num_sent,
                       " messages per step, but ", num_received_[channel], " are received and ",
                       num_used, " are used\n", FormatGrid(programs_)));
    }
    return absl::OkStatus();
  }

  const ScheduleShape& shape_;
  const std::vector<Program>& programs_;
  Play& play_;
  std::vector<int> next_;                           // [rank] cell
  std::vector<std::vector<MicrobatchIndex>> sent_;  // [channel]
  std::vector<int> num_received_;                   // [channel]
  std::vector<int> num_consumed_;                   // [edge], of those with credits
};

absl::StatusOr<Play> Play::Make(const ScheduleShape& shape, const std::vector<Program>& programs,
                                SendMode send_mode, const std::vector<int32_t>& credits,
                                bool run_ahead) {
  SP_RETURN_IF_ERROR(CheckCells(shape, programs));
  Play play;
  play.shape_ = shape;
  play.send_mode_ = send_mode;
  play.run_ahead_ = run_ahead;
  if (send_mode == SendMode::kBuffered) play.credits_ = credits;
  SP_RETURN_IF_ERROR(PlayMaker(shape, programs, &play).Make());
  return play;
}

Play::Times::Times(const ScheduleShape& shape, const std::vector<StageCost>& costs,
                   const std::vector<LinkCost>& links)
    : latency_s(2 * shape.num_stages, 0), transfer_s(2 * shape.num_stages, 0) {
  for (const StageCost& cost : costs) {
    std::array<double, kNumOps>& row = cost_s.emplace_back();
    row.fill(0);
    row[static_cast<int>(Op::kForward)] = cost.forward_s;
    row[static_cast<int>(Op::kBackward)] = cost.input_grad_s + cost.weight_grad_s;
    row[static_cast<int>(Op::kInputGrad)] = cost.input_grad_s;
    row[static_cast<int>(Op::kWeightGrad)] = cost.weight_grad_s;
    row[static_cast<int>(Op::kOptimize)] = cost.optimize_s;
  }
  for (size_t s = 0; s < links.size(); ++s) {
    const size_t back = shape.num_stages - 1 + s;
    latency_s[s] = latency_s[back] = links[s].latency_s;
    transfer_s[s] = links[s].forward_s;
    transfer_s[back] = links[s].backward_s;
  }
}

struct Play::Clockwork {
  const Play& play;
  const Times times;
  int32_t num_microbatches;
  std::vector<double> now_s;                    // [rank]
  std::vector<double> link_free_s;              // [channel]
  std::vector<double> arrival_s;                // [channel * microbatches + microbatch]
  std::vector<std::vector<double>> consumed_s;  // [edge], over all steps

  Clockwork(const Play& p, const std::vector<StageCost>& costs, const std::vector<LinkCost>& links)
      : play(p),
        times(p.shape_, costs, links),
        num_microbatches(p.shape_.num_microbatches),
        now_s(p.shape_.num_ranks(), 0),
        link_free_s(2 * p.shape_.num_stages, 0),
        arrival_s(2 * p.shape_.num_stages * p.shape_.num_microbatches, 0),
        consumed_s(p.credits_.size()) {}

  // Plays one event; returns when it starts.
  double Step(const Event& event) {
    double& now = now_s[event.rank];
    const Instruction& cell = event.instruction;
    double start = now;
    if (IsCompute(cell.op)) {
      if (event.awaits >= 0) now = start = std::max(now, arrival_s[Slot(event, event.awaits)]);
      now += times.cost_s[cell.stage.value()][static_cast<int>(cell.op)];
      if (play.ReturnsCredit(event)) consumed_s[event.awaits].push_back(now);
    } else if (play.send_mode_ == SendMode::kRendezvous) {
      start = std::max(now, now_s[event.peer_rank]);
      now = start + times.latency_s[event.channel] + times.transfer_s[event.channel];
      now_s[event.peer_rank] = now;
    } else if (IsSend(cell.op)) {
      if (cell.op == Op::kSendForward) now = std::max(now, CreditTime(event));
      const double send = std::max(now, link_free_s[event.channel]);
      link_free_s[event.channel] = send + times.transfer_s[event.channel];
      arrival_s[Slot(event, event.channel)] =
          send + times.latency_s[event.channel] + times.transfer_s[event.channel];
    }
    return start;
  }

  size_t Slot(const Event& event, int32_t channel) const {
    return static_cast<size_t>(channel) * num_microbatches + event.instruction.microbatch.value();
  }

  // When the activation whose credit this send takes over was consumed.
  double CreditTime(const Event& event) {
    if (play.credits_.empty()) return 0;
    const int64_t needed = int64_t{step} * play.num_sent_[event.channel] + event.send_index -
                           play.credits_[event.channel];
    return needed < 0 ? 0 : consumed_s[event.channel][needed];
  }
  int step = 0;
};

SimulateResult Play::Run(const std::vector<StageCost>& costs, const std::vector<LinkCost>& links,
                         int num_steps, bool trace) const {
  Clockwork clockwork(*this, costs, links);
  SimulateResult result;
  result.busy_s.assign(shape_.num_ranks(), 0);
  result.trace.resize(trace ? shape_.num_ranks() : 0);
  double first_step_end_s = 0;
  for (int& step = clockwork.step; step < num_steps; ++step) {
    for (const Event& event : events_) {
      const double before_s = clockwork.now_s[event.rank];
      const double start_s = clockwork.Step(event);
      if (!trace) continue;
      const double end_s = clockwork.now_s[event.rank];
      const Instruction& cell = event.instruction;
      auto& row = result.trace[event.rank];
      if (IsCompute(cell.op)) {
        result.busy_s[event.rank] += end_s - start_s;
        if (event.awaits >= 0) {
          row.push_back(
              {{ReceiveFor(cell.op), cell.stage, cell.microbatch}, step, before_s, start_s});
        }
        row.push_back({cell, step, start_s, end_s});
      } else if (send_mode_ == SendMode::kRendezvous || IsSend(cell.op)) {
        // A message waits from the moment its end reached it.
        row.push_back({cell, step, before_s, end_s});
      }
      if (send_mode_ == SendMode::kRendezvous && IsSend(event.instruction.op)) {
        auto& peer = result.trace[event.peer_rank];
        const double peer_before_s = peer.empty() ? 0 : peer.back().end_s;
        peer.push_back({PeerOf(event.instruction), step, peer_before_s, end_s});
      }
    }
    result.makespan_s = *absl::c_max_element(clockwork.now_s);
    if (!run_ahead_) absl::c_fill(clockwork.now_s, result.makespan_s);
    if (step == 0) first_step_end_s = result.makespan_s;
  }
  result.step_s =
      num_steps == 1 ? result.makespan_s : (result.makespan_s - first_step_end_s) / (num_steps - 1);
  return result;
}

}  // namespace smartpipe
