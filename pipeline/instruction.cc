#include "pipeline/instruction.h"

#include <algorithm>
#include <array>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "services/base/limits.h"
#include "services/base/status_macros.h"

namespace smartpipe {
namespace {

// Indexed by Op.
constexpr std::array<absl::string_view, 10> kOpNames = {"F",  "B",  "I",  "W",      "SF",
                                                        "RF", "SB", "RB", "REDUCE", "OPT"};
constexpr int kGridCellsMax = 16;  // shown of a marked row

absl::Status BadWord(absl::string_view text, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("instruction `", text, "`: ", what));
}

// One spelling per number: digits without leading zeros, below `end`.
absl::StatusOr<int32_t> ParseNumber(absl::string_view text, absl::string_view digits,
                                    absl::string_view name, int32_t end) {
  int32_t value = 0;
  if (digits.empty()) return BadWord(text, absl::StrCat("the ", name, " is missing"));
  if (digits.size() > 1 && digits[0] == '0') {
    return BadWord(text, absl::StrCat("the ", name, " `", digits, "` has a leading zero"));
  }
  if (!std::all_of(digits.begin(), digits.end(), absl::ascii_isdigit) ||
      !absl::SimpleAtoi(digits, &value) || value >= end) {
    return BadWord(text, absl::StrCat("the ", name, " `", digits, "` is not in 0..", end - 1));
  }
  return value;
}

std::string FormatRow(const Program& program, int mark) {
  const int size = static_cast<int>(program.size());
  int first = 0, end = size;
  if (mark >= 0 && size > kGridCellsMax) {
    first = std::clamp(mark - kGridCellsMax / 2, 0, size - kGridCellsMax);
    end = first + kGridCellsMax;
  }
  std::string row = first > 0 ? absl::StrCat("..(", first, ")") : "";
  for (int i = first; i < end; ++i) {
    absl::StrAppend(&row, row.empty() ? "" : " ",
                    i == mark ? absl::StrCat(">", Format(program[i]), "<") : Format(program[i]));
  }
  if (mark == size) absl::StrAppend(&row, " >end<");
  if (end < size) absl::StrAppend(&row, " (", size - end, ")..");
  return row;
}

}  // namespace

bool IsCompute(Op op) {
  return op != Op::kSendForward && op != Op::kRecvForward && op != Op::kSendBackward &&
         op != Op::kRecvBackward;
}

absl::string_view OpName(Op op) { return kOpNames[static_cast<size_t>(op)]; }

bool HasMicrobatch(Op op) { return op != Op::kReduce && op != Op::kOptimize; }

std::string Format(const Instruction& instruction) {
  std::string text = absl::StrCat(instruction.stage.value(), OpName(instruction.op));
  if (HasMicrobatch(instruction.op)) absl::StrAppend(&text, instruction.microbatch.value());
  return text;
}

std::string Format(const Program& program) {
  return absl::StrJoin(program, " ", [](std::string* out, const Instruction& instruction) {
    absl::StrAppend(out, Format(instruction));
  });
}

std::ostream& operator<<(std::ostream& out, const Instruction& instruction) {
  return out << Format(instruction);
}

absl::StatusOr<Instruction> ParseInstruction(absl::string_view text) {
  const auto op_begin = std::find_if_not(text.begin(), text.end(), absl::ascii_isdigit);
  const auto op_end = std::find_if(op_begin, text.end(), absl::ascii_isdigit);
  const size_t op_at = op_begin - text.begin();
  const absl::string_view op_text = text.substr(op_at, op_end - op_begin);
  const absl::string_view microbatch_text = text.substr(op_end - text.begin());

  Instruction instruction;
  SP_ASSIGN_OR_RETURN(const int32_t stage,
                      ParseNumber(text, text.substr(0, op_at), "stage", limits::kStagesMax));
  instruction.stage = StageIndex(stage);
  const auto name = std::find(kOpNames.begin(), kOpNames.end(), op_text);
  if (name == kOpNames.end()) {
    return BadWord(text,
                   absl::StrCat("`", op_text, "` is not one of ", absl::StrJoin(kOpNames, " ")));
  }
  instruction.op = static_cast<Op>(name - kOpNames.begin());
  if (!HasMicrobatch(instruction.op)) {
    if (microbatch_text.empty()) return instruction;
    return BadWord(text, absl::StrCat(op_text, " takes no micro-batch"));
  }
  SP_ASSIGN_OR_RETURN(const int32_t microbatch,
                      ParseNumber(text, microbatch_text, "micro-batch", limits::kMicrobatchesMax));
  instruction.microbatch = MicrobatchIndex(microbatch);
  return instruction;
}

absl::StatusOr<Program> ParseProgram(absl::string_view text) {
  Program program;
  for (absl::string_view word :
       absl::StrSplit(text, absl::ByAnyChar(" \t\r\n"), absl::SkipEmpty())) {
    SP_ASSIGN_OR_RETURN(const Instruction instruction, ParseInstruction(word));
    program.push_back(instruction);
  }
  return program;
}

std::string FormatGrid(const std::vector<Program>& programs, int mark_rank, int mark_index) {
  std::vector<int> marks(programs.size(), -1);
  if (mark_rank >= 0 && mark_rank < static_cast<int>(marks.size())) marks[mark_rank] = mark_index;
  return FormatGrid(programs, marks);
}

std::string FormatGrid(const std::vector<Program>& programs, const std::vector<int>& marks) {
  std::string grid;
  for (size_t rank = 0; rank < programs.size(); ++rank) {
    const int mark = rank < marks.size() ? marks[rank] : -1;
    absl::StrAppend(&grid, "rank ", rank, ": ", FormatRow(programs[rank], mark), "\n");
  }
  return grid;
}

}  // namespace smartpipe
