// GPipe (Huang et al., 2019): all forwards, then all backwards, then the optimizer.
//
// Differs from the paper: the backward takes the micro-batches in ascending order too, because the
// order in which gradients are added is part of the result and must not depend on the schedule.
#include "pipeline/schedules/schedules.h"

namespace smartpipe {

absl::StatusOr<std::vector<Program>> CompileGpipe(const ScheduleShape& shape) {
  std::vector<Program> programs(shape.num_ranks());
  for (int32_t s = 0; s < shape.num_stages; ++s) {
    const StageIndex stage(s);
    Program& program = programs[shape.rank_of(s)];
    for (int32_t m = 0; m < shape.num_microbatches; ++m) {
      program.push_back({Op::kForward, stage, MicrobatchIndex(m)});
    }
    if (s < shape.num_frozen_stages) continue;
    for (int32_t m = 0; m < shape.num_microbatches; ++m) {
      program.push_back({Op::kBackward, stage, MicrobatchIndex(m)});
    }
    program.push_back({Op::kOptimize, stage, MicrobatchIndex(0)});
  }
  return programs;
}

}  // namespace smartpipe
