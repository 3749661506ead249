#include "pipeline/schedule.h"

#include <algorithm>
#include <random>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "pipeline/simulate.h"
#include "tests/unit/pipeline/shapes.h"

namespace smartpipe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<std::string> Texts(const std::vector<Program>& programs) {
  std::vector<std::string> texts;
  for (const Program& program : programs) texts.push_back(Format(program));
  return texts;
}

// The order most people would write by hand: each receive right before its use, each send right
// after its source.
std::vector<Program> HandOrdered(const ScheduleShape& shape, const std::vector<Program>& compute) {
  std::vector<Program> programs;
  for (const Program& source : compute) {
    Program& program = programs.emplace_back();
    for (const Instruction& cell : source) {
      const int s = cell.stage.value();
      auto add = [&](Op op) { program.push_back({op, cell.stage, cell.microbatch}); };
      if (cell.op == Op::kForward && s > 0) add(Op::kRecvForward);
      if (cell.op == Op::kBackward && s + 1 < shape.num_stages) add(Op::kRecvBackward);
      program.push_back(cell);
      if (cell.op == Op::kForward && s + 1 < shape.num_stages) add(Op::kSendForward);
      if (cell.op == Op::kBackward && s > shape.num_frozen_stages) add(Op::kSendBackward);
    }
  }
  return programs;
}

TEST(Schedule, GpipeRunsAllForwardsThenAllBackwardsInAscendingOrder) {
  EXPECT_THAT(Texts(*Compile(MakeShape(2, 3, 1), "gpipe")),
              ElementsAre("0F0 0F1 0F2", "1F0 1F1 1F2 1B0 1B1 1B2 1OPT"));
}

TEST(Schedule, OneFOneBHoldsAtMostStagesMinusStage) {
  EXPECT_THAT(
      Texts(*Compile(MakeShape(3, 4), "1f1b")),
      ElementsAre("0F0 0F1 0F2 0B0 0F3 0B1 0B2 0B3 0OPT", "1F0 1F1 1B0 1F2 1B1 1F3 1B2 1B3 1OPT",
                  "2F0 2B0 2F1 2B1 2F2 2B2 2F3 2B3 2OPT"));
  EXPECT_THAT(Texts(*Compile(MakeShape(3, 4, 1), "1f1b"))[0], "0F0 0F1 0F2 0F3");
  for (const ScheduleShape& shape : AllSmallShapes()) {
    const std::vector<int32_t> peak = PeakInFlight(shape, *Compile(shape, "1f1b"));
    for (int s = 0; s < shape.num_stages; ++s) {
      const int want = std::min(shape.num_stages - s, shape.num_microbatches);
      EXPECT_EQ(peak[s], s < shape.num_frozen_stages ? 0 : want) << Describe(shape, "1f1b");
    }
  }
}

TEST(Schedule, EveryScheduleKeepsTheMicrobatchOrderAtEachStage) {
  for (const std::string& name : ScheduleNames()) {
    for (const ScheduleShape& shape : SmallShapes(name)) {
      const std::vector<Program> compute = *Compile(shape, name);
      std::vector<int> next_forward(shape.num_stages, 0), next_backward = next_forward;
      for (const Program& program : compute) {
        for (const Instruction& cell : program) {
          if (cell.op == Op::kOptimize) continue;
          const int s = cell.stage.value();
          int& next = cell.op == Op::kForward ? next_forward[s] : next_backward[s];
          EXPECT_EQ(cell.microbatch.value(), next++) << Describe(shape, name);
        }
      }
    }
  }
}

TEST(Schedule, ShapesOutOfRangeAndUnknownNamesAreRefused) {
  EXPECT_THAT(Compile(MakeShape(0, 1), "gpipe").status().message(),
              HasSubstr("shape.num_stages is 0, not in 1..256"));
  EXPECT_THAT(Compile(MakeShape(257, 1), "gpipe").status().message(),
              HasSubstr("num_stages is 257"));
  EXPECT_THAT(Compile(MakeShape(2, 0), "gpipe").status().message(),
              HasSubstr("num_microbatches is 0"));
  EXPECT_THAT(Compile(MakeShape(2, 4097), "gpipe").status().message(), HasSubstr("4097"));
  EXPECT_THAT(Compile(MakeShape(2, 1, 2), "gpipe").status().message(),
              HasSubstr("num_frozen_stages is 2, not in 0..1"));
  EXPECT_THAT(Compile(MakeShape(2, 1), "1f1").status().message(),
              HasSubstr("unknown schedule `1f1`; did you mean `1f1b`?"));
  EXPECT_THAT(Compile(MakeShape(2, 1), "GPIPE").status().message(),
              HasSubstr("There are: gpipe, 1f1b"));
  ScheduleShape shape = MakeShape(3, 2);
  shape.stage_to_rank = {0, 1};
  EXPECT_THAT(Compile(shape, "gpipe").status().message(), HasSubstr("has 2 entries for 3 stages"));
  shape.stage_to_rank = {0, 1, -1};
  EXPECT_THAT(Compile(shape, "gpipe").status().message(), HasSubstr("stage_to_rank[2] is -1"));
  shape.stage_to_rank = {0, 1, 0};
  for (const char* name : {"gpipe", "1f1b"}) {
    EXPECT_THAT(Compile(shape, name).status().message(),
                HasSubstr("gives rank 0 the stages 0 and 2"));
  }
  EXPECT_THAT(Compile(shape, "interleaved_1f1b").status().message(),
              HasSubstr("gives stage 0 of 3 to rank 0 of 2"));
}

TEST(Schedule, RanksMayBeAnyPermutation) {
  ScheduleShape shape = MakeShape(3, 4);
  const auto plain = *MakePrograms(shape, "1f1b");
  shape.stage_to_rank = {2, 0, 1};
  const auto programs = MakePrograms(shape, "1f1b");
  ASSERT_TRUE(programs.ok()) << programs.status();
  EXPECT_EQ((*programs)[2], plain[0]);
}

// Deadlock and validity over all small shapes, both kinds of sends, several steps, the default
// credits.
TEST(Schedule, AllSmallShapesPlayWithBothKindsOfSends) {
  int num_shapes = 0, num_hand_deadlocks = 0;
  for (const std::string& name : ScheduleNames()) {
    for (const ScheduleShape& shape : SmallShapes(name)) {
      const auto programs = MakePrograms(shape, name);  // validates
      ASSERT_TRUE(programs.ok()) << Describe(shape, name) << programs.status();
      const std::vector<StageCost> costs(shape.num_stages, {1, 1, 1, 1});
      for (SendMode mode : {SendMode::kBuffered, SendMode::kRendezvous}) {
        for (const auto& credits : {std::vector<int32_t>(), DefaultCredits(shape, name),
                                    std::vector<int32_t>(shape.num_stages - 1, 1)}) {
          const auto played = Simulate(shape, *programs, costs, {}, {mode, 3, credits});
          ASSERT_TRUE(played.ok()) << Describe(shape, name) << played.status();
          for (size_t rank = 0; rank < programs->size(); ++rank) {
            EXPECT_EQ(played->trace[rank].size(), 3 * (*programs)[rank].size());
          }
        }
      }
      ++num_shapes;
      const auto by_hand = HandOrdered(shape, *Compile(shape, name));
      num_hand_deadlocks += !ValidatePrograms(shape, by_hand).ok();
    }
  }
  RecordProperty("shapes", num_shapes);
  RecordProperty("hand_ordered_deadlocks", num_hand_deadlocks);
  EXPECT_EQ(num_shapes, 3 * 8 * 21 + 8 * (4 + 6 + 6 + 9 + 8 + 12));
  EXPECT_GT(num_hand_deadlocks, 50);  // so the question is a real one
}

// With sends that never wait and free links the lowered order is as fast as the best order,
// whatever the costs.
TEST(Schedule, LoweringCostsNoTimeWithBufferedSends) {
  std::mt19937 random(17);
  std::uniform_real_distribution<double> cost(0.1, 5);
  for (const std::string& name : ScheduleNames()) {
    for (const ScheduleShape& shape : SmallShapes(name)) {
      const auto compute = *Compile(shape, name);
      const auto lowered = *Lower(shape, compute);
      const auto best = HandOrdered(shape, compute);
      for (int repeat = 0; repeat < 5; ++repeat) {
        std::vector<StageCost> costs;
        for (int s = 0; s < shape.num_stages; ++s) {
          costs.push_back({cost(random), cost(random), cost(random), cost(random)});
        }
        const SimulateOptions options{SendMode::kBuffered, 3, DefaultCredits(shape, name)};
        EXPECT_NEAR(Simulate(shape, lowered, costs, {}, options)->makespan_s,
                    Simulate(shape, best, costs, {}, options)->makespan_s, 1e-9)
            << Describe(shape, name);
      }
    }
  }
}

TEST(Schedule, DefaultCreditsAreTheDepthThatIsUsed) {
  EXPECT_THAT(DefaultCredits(MakeShape(4, 8, 2), "1f1b"), ElementsAre(8, 8, 2));
  EXPECT_THAT(DefaultCredits(MakeShape(4, 8), "1f1b"), ElementsAre(4, 3, 2));
  EXPECT_THAT(DefaultCredits(MakeShape(4, 8, 1), "gpipe"), ElementsAre(8, 8, 8));
  EXPECT_THAT(DefaultCredits(MakeShape(4, 8)), ElementsAre(8, 8, 8));
  EXPECT_THAT(DefaultCredits(MakeShape(1, 8), "1f1b"), ElementsAre());
  // They slow nothing down that is not a frozen stage.
  for (const std::string& name : ScheduleNames()) {
    for (const ScheduleShape& shape : SmallShapes(name)) {
      std::vector<int32_t> wide = DefaultCredits(shape, name);
      for (int s = shape.num_frozen_stages; s + 1 < shape.num_stages; ++s) wide[s] = 1000;
      const auto programs = *MakePrograms(shape, name);
      const std::vector<StageCost> costs(shape.num_stages, {1, 1, 2, 0.5});
      EXPECT_EQ(Simulate(shape, programs, costs, {}, {SendMode::kBuffered, 3, wide})->makespan_s,
                Simulate(shape, programs, costs, {},
                         {SendMode::kBuffered, 3, DefaultCredits(shape, name)})
                    ->makespan_s);
    }
  }
}

TEST(Schedule, InterleavedTakesGroupsThroughOneStageAfterTheOther) {
  ScheduleShape shape = MakeShape(4, 4);
  shape.stage_to_rank = {0, 1, 0, 1};
  EXPECT_THAT(Texts(*Compile(shape, "interleaved_1f1b")),
              ElementsAre("0F0 0F1 2F0 2F1 0F2 2B0 0F3 2B1 2F2 0B0 2F3 0B1 2B2 2B3 0B2 0B3 0OPT "
                          "2OPT",
                          "1F0 1F1 3F0 3B0 3F1 3B1 1F2 1B0 1F3 1B1 3F2 3B2 3F3 3B3 1B2 1B3 1OPT "
                          "3OPT"));
}

TEST(Schedule, InterleavingShrinksTheBubble) {
  for (int microbatches : {4, 8, 16}) {
    const auto plain = MakeShape(4, microbatches);
    ScheduleShape interleaved = MakeShape(8, microbatches);
    interleaved.stage_to_rank = DealStages(8, 4);
    const auto step_s = [](const ScheduleShape& shape, const char* schedule, double unit_s) {
      const std::vector<StageCost> costs(shape.num_stages, {unit_s, unit_s, unit_s, 0});
      return Simulate(shape, *MakePrograms(shape, schedule), costs, {}, {})->makespan_s;
    };
    // Bubble of 1F1B: (R-1) (f+b); with v stages per rank a v-th of it.
    EXPECT_DOUBLE_EQ(step_s(plain, "1f1b", 1), 3.0 * (microbatches + 3));
    EXPECT_DOUBLE_EQ(step_s(interleaved, "interleaved_1f1b", 0.5), 3.0 * microbatches + 4.5);
  }
}

TEST(Schedule, LowerRefusesWhatCannotBePlayed) {
  const ScheduleShape shape = MakeShape(2, 1);
  const std::vector<Program> backward_first = {*ParseProgram("0B0 0F0 0OPT"),
                                               *ParseProgram("1F0 1B0 1OPT")};
  const auto lowered = Lower(shape, backward_first);
  EXPECT_EQ(lowered.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(lowered.status().message(), HasSubstr("cannot be played"));
  EXPECT_THAT(lowered.status().message(), HasSubstr(">0RB0<"));
  EXPECT_THAT(Lower(shape, {{}}).status().message(), HasSubstr("1 programs for 2 ranks"));
  const std::vector<Program> misplaced = {*ParseProgram("1F0"), {}};
  EXPECT_THAT(Lower(shape, misplaced).status().message(), HasSubstr("stage 1 belongs to rank 1"));
}

// Interleaved stages by hand: two per rank. Also the split backward.
TEST(Schedule, LowerHandlesSeveralStagesPerRankAndSplitBackward) {
  ScheduleShape shape = MakeShape(4, 2);
  shape.stage_to_rank = {0, 1, 0, 1};
  const std::vector<Program> compute = {
      *ParseProgram("0F0 0F1 2F0 2F1 2I0 0I0 2W0 2I1 0I1 2W1 2OPT 0W0 0W1 0OPT"),
      *ParseProgram("1F0 1F1 3F0 3B0 3F1 1B0 3B1 1B1 3OPT 1OPT")};
  const auto lowered = Lower(shape, compute);
  ASSERT_TRUE(lowered.ok()) << lowered.status();
  EXPECT_TRUE(ValidatePrograms(shape, *lowered).ok()) << ValidatePrograms(shape, *lowered);
  const std::vector<StageCost> costs(4, {1, 1, 1, 1});
  for (SendMode mode : {SendMode::kBuffered, SendMode::kRendezvous}) {
    EXPECT_TRUE(Simulate(shape, *lowered, costs, {}, {mode, 2, {}}).ok());
  }
  shape.stage_to_rank = {0, 0, 1, 1};  // neighbours share a rank: no message between them
  const std::vector<Program> pairs = {*ParseProgram("0F0 1F0 0F1 1F1 1B0 0B0 1B1 0B1 0OPT 1OPT"),
                                      *ParseProgram("2F0 3F0 3B0 2B0 2F1 3F1 3B1 2B1 3OPT 2OPT")};
  const auto paired = Lower(shape, pairs);
  ASSERT_TRUE(paired.ok()) << paired.status();
  EXPECT_EQ(Format((*paired)[0]), "0F0 1F0 1SF0 0F1 1F1 1SF1 1RB0 1B0 0B0 1RB1 1B1 0B1 0OPT 1OPT");
  EXPECT_TRUE(ValidatePrograms(shape, *paired).ok()) << ValidatePrograms(shape, *paired);
  const std::vector<Program> wrong = {*ParseProgram("1F0 0F0 0F1 1F1 1B0 0B0 1B1 0B1 0OPT 1OPT"),
                                      pairs[1]};
  EXPECT_THAT(Lower(shape, wrong).status().message(), HasSubstr("stage 0 comes later"));
}

}  // namespace
}  // namespace smartpipe
