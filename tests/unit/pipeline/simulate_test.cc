#include "pipeline/simulate.h"

#include <cmath>
#include <random>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "pipeline/play.h"
#include "tests/testutil/seed.h"
#include "tests/unit/pipeline/shapes.h"

namespace smartpipe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Forward and backward of one unit each, optimizer free.
std::vector<StageCost> UnitCosts(const ScheduleShape& shape) {
  std::vector<StageCost> costs;
  for (int s = 0; s < shape.num_stages; ++s) {
    costs.push_back({1, 0, s < shape.num_frozen_stages ? 0.0 : 1.0, 0});
  }
  return costs;
}

SimulateResult Play(const ScheduleShape& shape, const std::string& schedule,
                    const std::vector<StageCost>& costs, const std::vector<LinkCost>& links,
                    const SimulateOptions& options) {
  auto result = Simulate(shape, *MakePrograms(shape, schedule), costs, links, options);
  EXPECT_TRUE(result.ok()) << result.status();
  return *std::move(result);
}

// Idle units: of a trainable stage until the end, of a frozen one until its last forward ends.
double Bubbles(const ScheduleShape& shape, const SimulateResult& result) {
  double bubbles = 0;
  for (int s = 0; s < shape.num_stages; ++s) {
    const bool frozen = s < shape.num_frozen_stages;
    bubbles += (frozen ? result.trace[s].back().end_s : result.makespan_s) - result.busy_s[s];
  }
  return bubbles;
}

// The paper's shape: 4 stages, 6 micro-batches in one batch. A step with everything trainable needs
// 18 units and idles 24; with two frozen stages GPipe and 1F1B need 16 and idle 9 (the paper's
// figures for b = 6, where one flush is all).
TEST(Simulate, UnitTimesOfThePaperShape) {
  for (const std::string& schedule : ScheduleNames()) {
    const ScheduleShape all = MakeShape(4, 6);
    const SimulateResult full = Play(all, schedule, UnitCosts(all), {}, {});
    EXPECT_DOUBLE_EQ(full.makespan_s, 18) << schedule;
    EXPECT_DOUBLE_EQ(Bubbles(all, full), 24) << schedule;
    EXPECT_THAT(full.busy_s, ElementsAre(12, 12, 12, 12));

    const ScheduleShape half = MakeShape(4, 6, 2);
    const SimulateOptions options{SendMode::kBuffered, 1, DefaultCredits(half, schedule)};
    const SimulateResult frozen = Play(half, schedule, UnitCosts(half), {}, options);
    EXPECT_DOUBLE_EQ(frozen.makespan_s, 16) << schedule;
    EXPECT_DOUBLE_EQ(Bubbles(half, frozen), 9) << schedule;
  }
}

// Frozen stages go on to the next step while the trainable ones still run backward: the prefix's
// fill is paid once.
TEST(Simulate, RunAheadRemovesThePrefixBubble) {
  const ScheduleShape shape = MakeShape(4, 8, 2);
  const std::vector<StageCost> costs = {{1, 0, 0, 0}, {1, 0, 0, 0}, {1, 1, 1, 0}, {1, 1, 1, 0}};
  for (const std::string& schedule : ScheduleNames()) {
    const SimulateOptions ahead{SendMode::kBuffered, 6, DefaultCredits(shape, schedule)};
    const SimulateResult result = Play(shape, schedule, costs, {}, ahead);
    // First step: 2 units until the boundary stage starts, then (8 + 1) * 3.
    EXPECT_DOUBLE_EQ(result.makespan_s, 2 + 6 * 27) << schedule;
    EXPECT_DOUBLE_EQ(result.step_s, 27) << schedule;
  }
}

TEST(Simulate, CreditsBoundHowFarAFrozenStageIsAhead) {
  const ScheduleShape shape = MakeShape(2, 4, 1);
  const std::vector<StageCost> costs = {{1, 0, 0, 0}, {1, 0, 9, 0}};
  for (int credits : {1, 2, 4, 8}) {
    const SimulateResult result =
        Play(shape, "1f1b", costs, {}, {SendMode::kBuffered, 5, {credits}});
    std::vector<double> sent, consumed;
    for (const TimedInstruction& cell : result.trace[0]) {
      if (cell.instruction.op == Op::kSendForward) sent.push_back(cell.end_s);
    }
    for (const TimedInstruction& cell : result.trace[1]) {
      if (cell.instruction.op == Op::kForward) consumed.push_back(cell.end_s);
    }
    int most = 0;
    for (size_t i = 0; i < sent.size(); ++i) {
      int used = 0;
      for (double at : consumed) used += at <= sent[i];
      most = std::max(most, static_cast<int>(i) + 1 - used);
    }
    EXPECT_EQ(most, credits);
  }
}

TEST(Simulate, NoTrainableStageStartsAStepBeforeItsOptimizer) {
  const ScheduleShape shape = MakeShape(3, 4, 1);
  const SimulateResult result = Play(shape, "gpipe", std::vector<StageCost>(3, {1, 1, 1, 5}), {},
                                     {SendMode::kBuffered, 3, DefaultCredits(shape, "gpipe")});
  for (int rank = 1; rank < 3; ++rank) {
    double optimized_s = 0;
    for (const TimedInstruction& cell : result.trace[rank]) {
      if (cell.instruction.op == Op::kForward && cell.step > 0) {
        EXPECT_GE(cell.start_s, optimized_s);
      }
      if (cell.instruction.op == Op::kOptimize) optimized_s = cell.end_s;
    }
  }
}

TEST(Simulate, TransfersOverlapComputeAndFollowEachOther) {
  const ScheduleShape shape = MakeShape(2, 3, 1);
  const auto programs = *MakePrograms(shape, "gpipe");
  const std::vector<StageCost> costs = {{1, 0, 0, 0}, {1, 0, 1, 0}};
  // Forwards end at 1, 2, 3; each takes 4 on the line and 10 more to arrive: 15, 19, 23.
  const std::vector<LinkCost> links = {{10, 4, 4}};
  const auto result = Simulate(shape, programs, costs, links, {});
  ASSERT_TRUE(result.ok()) << result.status();
  std::vector<double> starts;
  for (const TimedInstruction& cell : result->trace[1]) {
    if (cell.instruction.op == Op::kForward) starts.push_back(cell.start_s);
  }
  EXPECT_THAT(starts, ElementsAre(15, 19, 23));
  EXPECT_DOUBLE_EQ(result->trace[0].back().end_s, 3);  // sends took no time of rank 0
  EXPECT_DOUBLE_EQ(result->makespan_s, 27);
  // With rendezvous both ends wait for 14 each: 1 + 14, then 1 + 14 again, ...
  const auto meeting = Simulate(shape, programs, costs, links, {SendMode::kRendezvous, 1, {}});
  EXPECT_DOUBLE_EQ(meeting->trace[0].back().end_s, 45);
}

TEST(Simulate, DeadlocksShowWhoWaitsWhere) {
  const ScheduleShape shape = MakeShape(2, 2);
  const std::vector<Program> programs = {*ParseProgram("0F0 0SF0 0F1 0SF1 0RB0 0B0 0RB1 0B1 0OPT"),
                                         *ParseProgram("1RF0 1F0 1B0 1SB0 1RF1 1F1 1B1 1SB1 1OPT")};
  const std::vector<StageCost> costs(2, {1, 1, 1, 0});
  EXPECT_TRUE(Simulate(shape, programs, costs, {}, {}).ok());
  const auto stuck = Simulate(shape, programs, costs, {}, {SendMode::kRendezvous, 1, {}});
  EXPECT_EQ(stuck.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(
      stuck.status().message(),
      HasSubstr("deadlock: these wait for ever: rank 0 at cell 3 (0SF1), rank 1 at cell 3 (1SB0)"));
  EXPECT_THAT(stuck.status().message(), HasSubstr(">0SF1<"));
}

TEST(Simulate, MessagesThatDoNotMatchAreErrors) {
  const ScheduleShape shape = MakeShape(2, 2, 1);
  const std::vector<StageCost> costs(2, {1, 1, 1, 0});
  const Program receiver = *ParseProgram("1RF0 1F0 1RF1 1F1 1B0 1B1 1OPT");
  const auto swapped =
      Simulate(shape, {*ParseProgram("0F0 0F1 0SF1 0SF0"), receiver}, costs, {}, {});
  EXPECT_THAT(swapped.status().message(), HasSubstr("cell 0 (1RF0): micro-batch 1 was sent first"));
  const auto lost = Simulate(shape, {*ParseProgram("0F0 0SF0 0F1 0SF1"), *ParseProgram("1RF0 1F0")},
                             costs, {}, {});
  EXPECT_THAT(lost.status().message(),
              HasSubstr("edge 0 -> 1 carries 2 messages per step, but 1 are received"));
}

TEST(Simulate, SizesAndValuesAreChecked) {
  const ScheduleShape shape = MakeShape(2, 2);
  const auto programs = *MakePrograms(shape, "gpipe");
  const std::vector<StageCost> costs(2, {1, 1, 1, 0});
  auto message = [&](const std::vector<StageCost>& c, const std::vector<LinkCost>& l,
                     const SimulateOptions& o) {
    const auto result = Simulate(shape, programs, c, l, o);
    EXPECT_EQ(result.status().code(), absl::StatusCode::kInvalidArgument);
    return std::string(result.status().message());
  };
  EXPECT_THAT(message({{1, 1, 1, 0}}, {}, {}), HasSubstr("1 stage costs for 2 stages"));
  EXPECT_THAT(message({{1, 1, 1, 0}, {NAN, 1, 1, 0}}, {}, {}), HasSubstr("costs[1]"));
  EXPECT_THAT(message({{1, -1, 1, 0}, {1, 1, 1, 0}}, {}, {}), HasSubstr("costs[0]"));
  EXPECT_THAT(message(costs, {{}, {}}, {}), HasSubstr("2 link costs for 1 edges"));
  EXPECT_THAT(message(costs, {{INFINITY, 0, 0}}, {}), HasSubstr("links[0]"));
  EXPECT_THAT(message(costs, {}, {SendMode::kBuffered, 0, {}}), HasSubstr("num_steps is 0"));
  EXPECT_THAT(message(costs, {}, {SendMode::kBuffered, 1, {1, 1}}),
              HasSubstr("2 credits for 1 edges"));
  EXPECT_THAT(message(costs, {}, {SendMode::kBuffered, 1, {0}}), HasSubstr("credits[0] is 0"));
}

// As many cores as ranks are no sharing; fewer take at least all work over them.
TEST(Simulate, RanksThatShareCores) {
  std::mt19937 random(testutil::TestSeed());
  std::uniform_real_distribution<double> cost(0.1, 5);
  for (const std::string& name : ScheduleNames()) {
    for (const ScheduleShape& shape : SmallShapes(name)) {
      if (shape.num_microbatches % 3 != 2) continue;  // 2, 5 and 8 are enough
      const auto play = *Play::Make(shape, *MakePrograms(shape, name), SendMode::kBuffered,
                                    DefaultCredits(shape, name));
      std::vector<StageCost> costs;
      std::vector<LinkCost> links;
      double work_s = 0;
      for (int s = 0; s < shape.num_stages; ++s) {
        const bool frozen = s < shape.num_frozen_stages;
        costs.push_back({cost(random), cost(random), cost(random), cost(random)});
        if (s > 0) links.push_back({cost(random) / 10, cost(random) / 10, cost(random) / 10});
        work_s += shape.num_microbatches * costs.back().forward_s;
        if (frozen) continue;
        work_s += costs.back().optimize_s;
        work_s += shape.num_microbatches * (costs.back().input_grad_s + costs.back().weight_grad_s);
      }
      const double alone_s = play.Run(costs, links, 6, false).step_s;
      EXPECT_NEAR(play.RunShared(costs, links, 6, shape.num_ranks()).step_s, alone_s,
                  1e-9 * alone_s)
          << Describe(shape, name);
      // How far the frozen ranks are ahead still changes a little from step to step.
      EXPECT_NEAR(play.RunShared(costs, {}, 80, 1).step_s, work_s, 0.02 * work_s)
          << Describe(shape, name);
      if (shape.num_ranks() < 3) continue;
      EXPECT_GE(play.RunShared(costs, links, 80, 2).step_s, work_s / 2 * (1 - 1e-12))
          << Describe(shape, name);
    }
  }
}

}  // namespace
}  // namespace smartpipe
