#include <algorithm>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "pipeline/play.h"
#include "pipeline/schedule.h"
#include "services/base/status_macros.h"

namespace smartpipe {
namespace {

// The instruction of the backward that reads and makes activation gradients.
bool MovesGradient(Op op) { return op == Op::kBackward || op == Op::kInputGrad; }

Program AddMessagesTo(const ScheduleShape& shape, const Program& compute) {
  auto has_edge = [&](int32_t s) {  // between s and s + 1, of different ranks
    return s >= 0 && s + 1 < shape.num_stages && shape.rank_of(s) != shape.rank_of(s + 1);
  };
  Program program;
  for (const Instruction& cell : compute) {
    const int32_t s = cell.stage.value();
    const bool forward = cell.op == Op::kForward, gradient = MovesGradient(cell.op);
    auto message = [&](Op op) { program.push_back({op, cell.stage, cell.microbatch}); };
    if (forward && has_edge(s - 1)) message(Op::kRecvForward);
    if (gradient && has_edge(s)) message(Op::kRecvBackward);
    program.push_back(cell);
    if (forward && has_edge(s)) message(Op::kSendForward);
    if (gradient && has_edge(s - 1) && s > shape.num_frozen_stages) message(Op::kSendBackward);
  }
  return program;
}

class Lowerer {
 public:
  Lowerer(const ScheduleShape& shape, const std::vector<Program>& compute)
      : shape_(shape), compute_(compute), next_(compute.size(), 0), lowered_(compute.size()) {}

  absl::StatusOr<std::vector<Program>> Lower() {
    SP_RETURN_IF_ERROR(CheckCells(shape_, compute_));
    SP_RETURN_IF_ERROR(CheckOrderInsideRanks());
    tight_ = AddMessages(shape_, compute_);
    for (const Program& program : tight_) done_.emplace_back(program.size(), false);
    while (true) {
      Play();
      if (AllEnded()) return std::move(lowered_);
      if (!MeetEarly()) return CannotPlay();
    }
  }

 private:
  // What stages of one rank hand each other takes no message, so the program's order must give it.
  absl::Status CheckOrderInsideRanks() const {
    const int32_t num_stages = shape_.num_stages, num_microbatches = shape_.num_microbatches;
    for (size_t rank = 0; rank < compute_.size(); ++rank) {
      std::vector<bool> forward(num_stages * num_microbatches), gradient = forward;
      for (size_t i = 0; i < compute_[rank].size(); ++i) {
        const Instruction& cell = compute_[rank][i];
        if (!IsCompute(cell.op)) {
          return CellError(compute_, rank, i, "compute programs hold no messages");
        }
        const int32_t s = cell.stage.value(), m = cell.microbatch.value();
        auto inside = [&](int32_t a, int32_t b) {
          return a >= 0 && b < num_stages && shape_.rank_of(a) == shape_.rank_of(b);
        };
        auto slot = [&](int32_t stage) { return stage * num_microbatches + m; };
        if (cell.op == Op::kForward) {
          if (inside(s - 1, s) && !forward[slot(s - 1)]) {
            return CellError(compute_, rank, i, absl::StrCat("stage ", s - 1, " comes later"));
          }
          forward[slot(s)] = true;
        } else if (MovesGradient(cell.op)) {
          if (inside(s, s + 1) && !gradient[slot(s + 1)]) {
            return CellError(compute_, rank, i, absl::StrCat("stage ", s + 1, " comes later"));
          }
          gradient[slot(s)] = true;
        }
      }
    }
    return absl::OkStatus();
  }

  // Rendezvous play: as far as it goes without a receive out of its place.
  void Play() {
    for (bool moved = true; moved;) {
      moved = false;
      for (size_t rank = 0; rank < tight_.size(); ++rank) {
        while (const Instruction* cell = Current(rank)) {
          if (!IsCompute(cell->op)) {
            const size_t peer_rank = PeerRank(*cell);
            const Instruction* peer = Current(peer_rank);
            if (!IsSend(cell->op) || peer == nullptr || *peer != PeerOf(*cell)) break;
            Emit(peer_rank, next_[peer_rank]);
          }
          Emit(rank, next_[rank]);
          moved = true;
        }
      }
    }
  }

  // Stuck: lets one send of each ring of waiting ranks meet its receive although the receiver
  // stands before it. The one that passes over the least work is taken: between two neighbours that
  // send to each other it passes over none. Sends that merely wait for such a ring are left alone.
  bool MeetEarly() {
    bool met = false;
    std::vector<bool> seen(tight_.size(), false);
    for (size_t start = 0; start < tight_.size(); ++start) {
      std::vector<size_t> chain;
      size_t rank = start;
      while (Current(rank) != nullptr && !seen[rank]) {
        seen[rank] = true;
        chain.push_back(rank);
        rank = PeerRank(*Current(rank));
      }
      const auto ring = std::find(chain.begin(), chain.end(), rank);
      if (ring != chain.end() && MeetEarlyIn({ring, chain.end()})) met = true;
    }
    return met;
  }

  bool MeetEarlyIn(const std::vector<size_t>& ring) {
    // (work passed over, gradients after activations, stage) and the sender.
    std::vector<std::pair<std::tuple<int, Op, StageIndex>, size_t>> choices;
    for (size_t rank : ring) {
      const Instruction& cell = *Current(rank);
      if (!IsSend(cell.op)) continue;
      if (const auto [index, passed] = FindReceive(cell); index >= 0) {
        choices.push_back({{passed, cell.op, cell.stage}, rank});
      }
    }
    if (choices.empty()) return false;
    const size_t rank = std::min_element(choices.begin(), choices.end())->second;
    const Instruction& send = *Current(rank);
    Emit(PeerRank(send), FindReceive(send).first);
    Emit(rank, next_[rank]);
    return true;
  }

  // Where the receiver has the other end of `send`, -1 if nowhere, and how much work it does
  // before.
  std::pair<int, int> FindReceive(const Instruction& send) const {
    const Instruction wanted = PeerOf(send);
    const size_t rank = PeerRank(send);
    int passed = 0;
    for (size_t i = next_[rank]; i < tight_[rank].size(); ++i) {
      if (tight_[rank][i] == wanted) return {static_cast<int>(i), passed};
      passed += IsCompute(tight_[rank][i].op);
    }
    return {-1, passed};
  }

  const Instruction* Current(size_t rank) {
    size_t& next = next_[rank];
    while (next < tight_[rank].size() && done_[rank][next]) ++next;
    return next < tight_[rank].size() ? &tight_[rank][next] : nullptr;
  }
  size_t PeerRank(const Instruction& message) const {
    return shape_.rank_of(PeerOf(message).stage.value());
  }
  void Emit(size_t rank, size_t index) {
    done_[rank][index] = true;
    lowered_[rank].push_back(tight_[rank][index]);
  }
  bool AllEnded() {
    for (size_t rank = 0; rank < tight_.size(); ++rank) {
      if (Current(rank) != nullptr) return false;
    }
    return true;
  }

  absl::Status CannotPlay() {
    std::vector<int> marks(tight_.size(), -1);
    for (size_t rank = 0; rank < tight_.size(); ++rank) {
      if (Current(rank) != nullptr) marks[rank] = static_cast<int>(next_[rank]);
    }
    return absl::FailedPreconditionError(
        absl::StrCat("the compute programs cannot be played: each marked cell waits for another\n",
                     FormatGrid(tight_, marks)));
  }

  const ScheduleShape& shape_;
  const std::vector<Program>& compute_;
  std::vector<Program> tight_;           // [rank] with messages in their best place
  std::vector<std::vector<bool>> done_;  // [rank][cell of tight_]
  std::vector<size_t> next_;             // [rank] first cell that may not be done
  std::vector<Program> lowered_;
};

}  // namespace

std::vector<Program> AddMessages(const ScheduleShape& shape, const std::vector<Program>& compute) {
  std::vector<Program> programs;
  for (const Program& program : compute) programs.push_back(AddMessagesTo(shape, program));
  return programs;
}

absl::StatusOr<std::vector<Program>> Lower(const ScheduleShape& shape,
                                           const std::vector<Program>& compute) {
  return Lowerer(shape, compute).Lower();
}

}  // namespace smartpipe
