// The grammar of schedules: an immutable instruction that prints and parses.
//
//   text      meaning
//   2F0       stage 2: forward of micro-batch 0
//   2B0       stage 2: backward, input and weight gradient fused
//   2I0 2W0   stage 2: input gradient only; weight gradient only
//   2SF0      stage 2 sends the activation of micro-batch 0 to stage 3
//   3RF0      stage 3 receives it
//   3SB0 2RB0 the same for the gradient of the activation, stage 3 to stage 2
//   2REDUCE   stage 2: gradients are summed over its workers (one worker today: not emitted)
//   2OPT      stage 2: optimizer step
#pragma once

#include <cstdint>
#include <ostream>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "services/base/ids.h"

namespace smartpipe {

enum class Op : uint8_t {
  kForward,
  kBackward,
  kInputGrad,
  kWeightGrad,
  kSendForward,
  kRecvForward,
  kSendBackward,
  kRecvBackward,
  kReduce,
  kOptimize,
};

/// True for F, B, I, W, REDUCE and OPT: work of the compute thread, as opposed to communication.
bool IsCompute(Op op);
/// True for SF and SB.
inline bool IsSend(Op op) { return op == Op::kSendForward || op == Op::kSendBackward; }
/// True for RF and RB.
inline bool IsReceive(Op op) { return op == Op::kRecvForward || op == Op::kRecvBackward; }
/// "F", "SB", "OPT", ...
absl::string_view OpName(Op op);
/// False for REDUCE and OPT, which belong to the whole step.
bool HasMicrobatch(Op op);

struct Instruction {
  Op op = Op::kForward;
  StageIndex stage;
  MicrobatchIndex microbatch;  // 0 for REDUCE and OPT
  friend auto operator<=>(const Instruction&, const Instruction&) = default;
};
/// What one rank runs for one step, in order.
using Program = std::vector<Instruction>;

std::string Format(const Instruction& instruction);
std::string Format(const Program& program);  // blank-separated
std::ostream& operator<<(std::ostream& out, const Instruction& instruction);
/// INVALID_ARGUMENT naming the offending word and what was expected.
absl::StatusOr<Instruction> ParseInstruction(absl::string_view text);
absl::StatusOr<Program> ParseProgram(absl::string_view text);

/// The programs of all ranks as a grid for people (one row per rank); `mark_rank`/`mark_index` (if
/// >= 0) put >< around one cell. A row that is marked and long shows only what stands around its
/// mark. Used in error messages.
std::string FormatGrid(const std::vector<Program>& programs, int mark_rank = -1,
                       int mark_index = -1);
/// Same with one mark per rank: marks[rank] is an index, or -1 for none.
std::string FormatGrid(const std::vector<Program>& programs, const std::vector<int>& marks);

}  // namespace smartpipe
