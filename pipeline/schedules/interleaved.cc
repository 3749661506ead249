// Interleaved 1F1B (Narayanan et al., 2021): each rank runs several stages, so that the pipeline
// fills and drains in smaller pieces.
//
// Micro-batches go in groups of as many as there are ranks; a rank takes a whole group through its
// first stage, then through its second, and so on; backwards likewise from the last stage on.
// Differs from the paper: any number of micro-batches will do. A last group that is not full is
// ordered as if it were, and what is missing is left out: so what waits for what stays as in full
// groups, which never deadlock.
// Frozen stages keep their place in the order and only forward.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "pipeline/schedules/schedules.h"
#include "services/base/status_macros.h"

namespace smartpipe {
namespace {

// Every (stage of the rank, micro-batch of full groups), in the order of forwards, or with the
// stages of each group from the last on: of backwards.
std::vector<std::pair<int32_t, int32_t>> Order(const ScheduleShape& shape, int32_t rank,
                                               bool backward) {
  std::vector<std::pair<int32_t, int32_t>> order;
  const int32_t num_ranks = shape.num_ranks();
  for (int32_t first = 0; first < shape.num_microbatches; first += num_ranks) {
    for (int32_t i = rank; i < shape.num_stages; i += num_ranks) {
      const int32_t stage = backward ? shape.num_stages - num_ranks + 2 * rank - i : i;
      for (int32_t m = first; m < first + num_ranks; ++m) order.emplace_back(stage, m);
    }
  }
  return order;
}

Program CompileRank(const ScheduleShape& shape, int32_t rank) {
  const auto forwards = Order(shape, rank, /*backward=*/false);
  const auto backwards = Order(shape, rank, /*backward=*/true);
  const int32_t num_ranks = shape.num_ranks();
  const int32_t num_own = static_cast<int32_t>(forwards.size());
  const int32_t stages_per_rank = shape.num_stages / num_ranks;
  // Forwards before the first backward: the way through the other stages of the rank, and to the
  // last rank and back.
  const int32_t warm_up =
      std::min(num_own, (stages_per_rank - 1) * num_ranks + 2 * (num_ranks - 1 - rank) + 1);
  Program program;
  auto add = [&](Op op, const std::pair<int32_t, int32_t>& item) {
    const auto [stage, m] = item;
    const bool runs = op == Op::kForward || stage >= shape.num_frozen_stages;
    if (runs && m < shape.num_microbatches) {
      program.push_back({op, StageIndex(stage), MicrobatchIndex(m)});
    }
  };
  int32_t next = 0;
  while (next < warm_up) add(Op::kForward, forwards[next++]);
  for (const auto& backward : backwards) {
    add(Op::kBackward, backward);
    if (next < num_own) add(Op::kForward, forwards[next++]);
  }
  for (int32_t stage = rank; stage < shape.num_stages; stage += num_ranks) {
    if (stage < shape.num_frozen_stages) continue;
    program.push_back({Op::kOptimize, StageIndex(stage), MicrobatchIndex(0)});
  }
  return program;
}

}  // namespace

absl::StatusOr<std::vector<Program>> CompileInterleaved(const ScheduleShape& shape) {
  const int32_t num_ranks = shape.num_ranks();
  for (int32_t s = 0; s < shape.num_stages; ++s) {
    if (shape.num_stages % num_ranks == 0 && shape.rank_of(s) == s % num_ranks) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        "schedule `interleaved_1f1b` deals out stages in turn, the same number to each rank, but "
        "shape.stage_to_rank gives stage ",
        s, " of ", shape.num_stages, " to rank ", shape.rank_of(s), " of ", num_ranks));
  }
  std::vector<Program> programs;
  for (int32_t rank = 0; rank < num_ranks; ++rank) programs.push_back(CompileRank(shape, rank));
  return programs;
}

}  // namespace smartpipe
