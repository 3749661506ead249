// 1F1B (PipeDream-flush; Narayanan et al., 2021): one backward for each forward, so that stage s
// never holds more than S - s activations.
//
// With frozen stages in front the trainable ones keep the limit of their place in the whole
// pipeline; the frozen ones only forward and hold nothing.
#include <algorithm>

#include "pipeline/schedules/schedules.h"

namespace smartpipe {
namespace {

void AppendStage(const ScheduleShape& shape, int32_t s, Program* program) {
  const StageIndex stage(s);
  const int32_t num_microbatches = shape.num_microbatches;
  const bool frozen = s < shape.num_frozen_stages;
  const int32_t in_flight_max =
      frozen ? num_microbatches : std::min(shape.num_stages - s, num_microbatches);
  int32_t forward = 0;
  for (; forward < in_flight_max; ++forward) {
    program->push_back({Op::kForward, stage, MicrobatchIndex(forward)});
  }
  if (frozen) return;
  for (int32_t backward = 0; backward < num_microbatches; ++backward) {
    program->push_back({Op::kBackward, stage, MicrobatchIndex(backward)});
    if (forward == num_microbatches) continue;
    program->push_back({Op::kForward, stage, MicrobatchIndex(forward++)});
  }
  program->push_back({Op::kOptimize, stage, MicrobatchIndex(0)});
}

}  // namespace

absl::StatusOr<std::vector<Program>> CompileOneFOneB(const ScheduleShape& shape) {
  std::vector<Program> programs(shape.num_ranks());
  for (int32_t s = 0; s < shape.num_stages; ++s) AppendStage(shape, s, &programs[shape.rank_of(s)]);
  return programs;
}

}  // namespace smartpipe
