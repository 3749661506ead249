// Internal to what reads traces: which message an instruction sends or waits for.
#pragma once

#include <cstdint>
#include <tuple>

#include "pipeline/instruction.h"

namespace smartpipe {

/// Step, edge, whether it is an activation, micro-batch.
using MessageKey = std::tuple<int64_t, int, bool, int>;

/// Of a SEND or RECV of `step`; the same at both ends.
inline MessageKey KeyOf(int64_t step, const Instruction& instruction) {
  const int stage = instruction.stage.value();
  const bool activation = instruction.op == Op::kRecvForward || instruction.op == Op::kSendForward;
  const bool upper = instruction.op == Op::kRecvForward || instruction.op == Op::kSendBackward;
  return {step, upper ? stage - 1 : stage, activation, instruction.microbatch.value()};
}

}  // namespace smartpipe
