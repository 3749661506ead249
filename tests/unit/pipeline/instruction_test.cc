#include "pipeline/instruction.h"

#include <sstream>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace smartpipe {
namespace {

using ::testing::HasSubstr;

Instruction Make(Op op, int stage, int microbatch) {
  return {op, StageIndex(stage), MicrobatchIndex(microbatch)};
}

TEST(Instruction, PrintsTheGrammar) {
  EXPECT_EQ(Format(Make(Op::kForward, 2, 0)), "2F0");
  EXPECT_EQ(Format(Make(Op::kRecvBackward, 1, 3)), "1RB3");
  EXPECT_EQ(Format(Make(Op::kOptimize, 12, 0)), "12OPT");
  std::ostringstream out;
  out << Make(Op::kReduce, 0, 0);
  EXPECT_EQ(out.str(), "0REDUCE");
}

TEST(Instruction, EveryOneParsesBackToItself) {
  for (int op = 0; op <= static_cast<int>(Op::kOptimize); ++op) {
    for (int stage : {0, 1, 9, 10, 63}) {
      for (int microbatch : {0, 1, 10, 4095}) {
        const Op kind = static_cast<Op>(op);
        const Instruction instruction = Make(kind, stage, HasMicrobatch(kind) ? microbatch : 0);
        const auto parsed = ParseInstruction(Format(instruction));
        ASSERT_TRUE(parsed.ok()) << parsed.status();
        EXPECT_EQ(*parsed, instruction);
      }
    }
  }
}

TEST(Instruction, ProgramParsesWithAnyBlanks) {
  const auto program = ParseProgram(" 0F0\n 0SF0\t0RB0 0B0  0OPT ");
  ASSERT_TRUE(program.ok()) << program.status();
  EXPECT_EQ(Format(*program), "0F0 0SF0 0RB0 0B0 0OPT");
  EXPECT_TRUE(ParseProgram("")->empty());
}

TEST(Instruction, BadWordsAreNamed) {
  const std::pair<const char*, const char*> kBad[] = {
      {"", "the stage is missing"},
      {"F0", "the stage is missing"},
      {"2F", "the micro-batch is missing"},
      {"2X0", "`X` is not one of F B I W"},
      {"2f0", "`f` is not one of"},
      {"2", "`` is not one of"},
      {"256F0", "the stage `256` is not in 0..255"},
      {"99999999999F0", "is not in 0..255"},
      {"0F4096", "the micro-batch `4096` is not in 0..4095"},
      {"02F0", "leading zero"},
      {"2F00", "leading zero"},
      {"2OPT0", "OPT takes no micro-batch"},
      {"2F0x", "the micro-batch `0x`"},
      {"-1F0", "the stage is missing"},
  };
  for (const auto& [text, want] : kBad) {
    const auto parsed = ParseInstruction(text);
    EXPECT_EQ(parsed.status().code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(parsed.status().message(), HasSubstr(want));
    EXPECT_THAT(parsed.status().message(), HasSubstr(std::string("`") + text + "`"));
  }
  EXPECT_THAT(ParseProgram("0F0 zz 0F1").status().message(), HasSubstr("instruction `zz`"));
}

TEST(Instruction, GridMarksOneCellAndShortensLongRows) {
  std::vector<Program> programs = {*ParseProgram("0F0 0SF0"), {}};
  EXPECT_EQ(FormatGrid(programs, 0, 1), "rank 0: 0F0 >0SF0<\nrank 1: \n");
  EXPECT_EQ(FormatGrid(programs, 0, 2), "rank 0: 0F0 0SF0 >end<\nrank 1: \n");
  for (int m = 0; m < 40; ++m) programs[1].push_back(Make(Op::kForward, 1, m));
  EXPECT_THAT(FormatGrid(programs, 1, 20),
              HasSubstr("rank 1: ..(12) 1F12 1F13 1F14 1F15 1F16 1F17 1F18 1F19 >1F20< 1F21"));
  EXPECT_THAT(FormatGrid(programs, 1, 20), HasSubstr("1F27 (12)..\n"));
}

}  // namespace
}  // namespace smartpipe
