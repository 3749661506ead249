#include "pipeline/paper_rules.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "pipeline/schedule.h"
#include "tests/testutil/seed.h"

namespace smartpipe {
namespace {

using ::testing::HasSubstr;

std::vector<StageCost> UnitCosts(int num_stages) {
  return std::vector<StageCost>(
      num_stages, {.forward_s = 1, .input_grad_s = 0.5, .weight_grad_s = 0.5, .optimize_s = 0});
}

double Bubbles(const SimulateResult& result) {
  double sum_s = 0;
  for (const RankUse& use : RankUses(result)) sum_s += use.idle_s;
  return sum_s;
}

std::string Describe(const PaperShape& shape) {
  return absl::StrCat(shape.schedule, " s=", shape.num_stages, " D=", shape.num_samples,
                      " b=", shape.batch_size, " frozen=", shape.num_frozen_stages);
}

TEST(PaperRules, TheEightFigures) {
  struct Figure {
    const char* schedule;
    int batch_size, num_frozen;
    double time, bubbles;
  };
  constexpr Figure kFigures[] = {
      {"gpipe", 6, 0, 18, 24}, {"1f1b", 6, 0, 18, 24},  {"gpipe", 6, 2, 16, 9},
      {"1f1b", 6, 2, 16, 9},   {"gpipe", 3, 0, 24, 48}, {"1f1b", 3, 0, 20, 32},
      {"gpipe", 3, 2, 18, 13}, {"1f1b", 3, 2, 16, 10},
  };
  for (const Figure& figure : kFigures) {
    const PaperShape shape = {figure.schedule, 4, 6, figure.batch_size, figure.num_frozen};
    const auto result = PlayPaperRules(shape, UnitCosts(4), {});
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_EQ(result->makespan_s, figure.time) << Describe(shape);
    EXPECT_EQ(Bubbles(*result), figure.bubbles) << Describe(shape);
  }
}

// A second reading of the rules, slot by slot and as plain as can be, for unit times.
class SlotPlayer {
 public:
  explicit SlotPlayer(const PaperShape& shape)
      : shape_(shape), forwards_(shape.num_stages, 0), backwards_(shape.num_stages, 0) {}

  // One string per slot and stage: "F3", "B3" or "".
  std::vector<std::vector<std::string>> Play() {
    std::vector<std::vector<std::string>> slots;
    while (backwards_[shape_.num_frozen_stages] < shape_.num_samples) {
      const std::vector<int> forwards = forwards_, backwards = backwards_;
      std::vector<std::string>& slot = slots.emplace_back(shape_.num_stages);
      for (int i = 0; i < shape_.num_stages; ++i) {
        const bool forward = MayForward(i, forwards, backwards);
        const bool backward = MayBackward(i, forwards, backwards);
        if (forward && (shape_.schedule == "gpipe" || !backward)) {
          slot[i] = absl::StrCat("F", forwards_[i]++);
        } else if (backward) {
          slot[i] = absl::StrCat("B", backwards_[i]++);
        }
      }
    }
    return slots;
  }

 private:
  bool MayForward(int i, const std::vector<int>& forwards, const std::vector<int>& backwards) {
    const int n = forwards[i], b = shape_.batch_size, k = shape_.num_frozen_stages;
    if (n == shape_.num_samples || (i > 0 && forwards[i - 1] <= n)) return false;
    if (i < k) return i != k - 1 || n - forwards[k] < b;
    if (shape_.schedule == "gpipe") return backwards[i] >= n / b * b;
    return n - backwards[i] < std::min(shape_.num_stages - i, b);
  }
  bool MayBackward(int i, const std::vector<int>& forwards, const std::vector<int>& backwards) {
    const int n = backwards[i], b = shape_.batch_size;
    if (i < shape_.num_frozen_stages || n >= forwards[i]) return false;
    if (i + 1 < shape_.num_stages && backwards[i + 1] <= n) return false;
    return shape_.schedule == "1f1b" ||
           forwards[i] >= std::min(shape_.num_samples, (n / b + 1) * b);
  }

  const PaperShape& shape_;
  std::vector<int> forwards_, backwards_;
};

std::vector<PaperShape> SmallShapes() {
  std::vector<PaperShape> shapes;
  for (const char* schedule : {"gpipe", "1f1b"}) {
    for (int s = 1; s <= 5; ++s) {
      for (int d = 1; d <= 9; ++d) {
        for (int b = 1; b <= d + 1; ++b) {
          for (int k = 0; k < s; ++k) shapes.push_back({schedule, s, d, b, k});
        }
      }
    }
  }
  return shapes;
}

TEST(PaperRules, EqualTheSlotBySlotReadingOnAllSmallShapes) {
  for (const PaperShape& shape : SmallShapes()) {
    const auto slots = SlotPlayer(shape).Play();
    const auto result = PlayPaperRules(shape, UnitCosts(shape.num_stages), {});
    ASSERT_TRUE(result.ok()) << result.status();
    ASSERT_EQ(result->makespan_s, slots.size()) << Describe(shape);
    std::vector<std::vector<std::string>> played(slots.size(),
                                                 std::vector<std::string>(shape.num_stages));
    for (int i = 0; i < shape.num_stages; ++i) {
      for (const TimedInstruction& timed : result->trace[i]) {
        played[static_cast<size_t>(timed.start_s)][i] =
            absl::StrCat(OpName(timed.instruction.op), timed.instruction.microbatch.value());
      }
    }
    ASSERT_EQ(played, slots) << Describe(shape);
  }
}

struct Times {
  std::vector<double> forward_start, forward_end, backward_start, backward_end;
};

std::vector<Times> TimesOf(const SimulateResult& result) {
  std::vector<Times> times(result.trace.size());
  for (size_t i = 0; i < times.size(); ++i) {
    double free_s = 0;
    for (const TimedInstruction& timed : result.trace[i]) {
      EXPECT_GE(timed.start_s, free_s);
      EXPECT_GE(timed.end_s, timed.start_s);
      free_s = timed.end_s;
      const Op op = timed.instruction.op;
      if (op == Op::kOptimize) continue;
      const bool forward = op == Op::kForward;
      std::vector<double>& starts = forward ? times[i].forward_start : times[i].backward_start;
      // In order, each once.
      EXPECT_EQ(timed.instruction.microbatch.value(), static_cast<int>(starts.size()));
      starts.push_back(timed.start_s);
      (forward ? times[i].forward_end : times[i].backward_end).push_back(timed.end_s);
    }
  }
  return times;
}

// How many of `begins` and not yet of `ends` there are right after `at`.
int64_t Open(const std::vector<double>& begins, const std::vector<double>& ends, double at) {
  auto count = [at](const std::vector<double>& times) {
    return std::upper_bound(times.begin(), times.end(), at) - times.begin();
  };
  return count(begins) - count(ends);
}

void ExpectTheRulesKept(const PaperShape& shape, const std::vector<LinkCost>& links,
                        const SimulateResult& result) {
  const int s = shape.num_stages, d = shape.num_samples, b = shape.batch_size;
  const int k = shape.num_frozen_stages;
  const std::vector<Times> times = TimesOf(result);
  auto link = [&](int edge) { return links.empty() ? LinkCost() : links[edge]; };
  for (int i = 0; i < s; ++i) {
    const Times& mine = times[i];
    ASSERT_EQ(mine.forward_start.size(), static_cast<size_t>(d));
    ASSERT_EQ(mine.backward_start.size(), static_cast<size_t>(i < k ? 0 : d));
    for (int n = 0; n < d; ++n) {
      if (i > 0) {
        const double way = link(i - 1).latency_s + link(i - 1).forward_s;
        EXPECT_GE(mine.forward_start[n] + 1e-9, times[i - 1].forward_end[n] + way);
      }
      if (i < k) continue;
      EXPECT_GE(mine.backward_start[n], mine.forward_end[n]);
      if (i + 1 < s) {
        const double way = link(i).latency_s + link(i).backward_s;
        EXPECT_GE(mine.backward_start[n] + 1e-9, times[i + 1].backward_end[n] + way);
      }
      if (shape.schedule == "gpipe") {
        const int last = std::min(d, (n / b + 1) * b) - 1;
        EXPECT_GE(mine.backward_start[n], mine.forward_end[last]);
        if (last + 1 < d) {
          EXPECT_GE(mine.forward_start[last + 1], mine.backward_end[n]);
        }
      } else {
        EXPECT_LE(Open(mine.forward_start, mine.backward_end, mine.forward_start[n]),
                  std::min(s - i, b));
      }
    }
  }
  if (k == 0) return;
  for (const double at : times[k - 1].forward_start) {
    EXPECT_LE(Open(times[k - 1].forward_start, times[k].forward_end, at), b);
  }
}

TEST(PaperRules, AreKeptWithRandomCosts) {
  std::mt19937 random(testutil::TestSeed());
  auto unit = [&] { return std::uniform_real_distribution<double>(0, 1)(random); };
  for (const PaperShape& shape : SmallShapes()) {
    std::vector<StageCost> costs;
    std::vector<LinkCost> links;
    const bool has_links = random() % 2, has_zeros = random() % 8 == 0;
    for (int i = 0; i < shape.num_stages; ++i) {
      costs.push_back({0.1 + unit(), unit(), 0.1 + unit(), random() % 2 ? unit() : 0});
      if (has_zeros && random() % 2) costs.back() = {};
      if (has_links && i > 0) links.push_back({0.2 * unit(), 0.5 * unit(), 0.5 * unit()});
    }
    const auto result = PlayPaperRules(shape, costs, links);
    ASSERT_TRUE(result.ok()) << result.status();
    ExpectTheRulesKept(shape, links, *result);
    if (testing::Test::HasFailure()) FAIL() << Describe(shape);
  }
}

// The paper's pipelines and the engine's agree where one batch is all there is and nothing is
// frozen.
TEST(PaperRules, OneBatchIsWhatTheEngineDoes) {
  for (const char* schedule : {"gpipe", "1f1b"}) {
    for (int s = 1; s <= 5; ++s) {
      for (int d = 1; d <= 8; ++d) {
        const ScheduleShape engine = {.num_stages = s, .num_microbatches = d};
        const auto programs = MakePrograms(engine, schedule);
        ASSERT_TRUE(programs.ok());
        const auto want = Simulate(engine, *programs, UnitCosts(s), {},
                                   {.credits = DefaultCredits(engine, schedule)});
        const auto result = PlayPaperRules({schedule, s, d, d, 0}, UnitCosts(s), {});
        ASSERT_TRUE(want.ok() && result.ok());
        EXPECT_EQ(result->makespan_s, want->makespan_s) << schedule << " s=" << s << " D=" << d;
        EXPECT_FALSE(NeedsStaleWeights(*result, 0));
        EXPECT_FALSE(NeedsStaleWeights(*want, 0));
      }
    }
  }
}

TEST(PaperRules, OnlyOneFOneBNeedsStaleWeights) {
  for (const PaperShape& shape : SmallShapes()) {
    const auto result = PlayPaperRules(shape, UnitCosts(shape.num_stages), {});
    ASSERT_TRUE(result.ok());
    const bool stale = NeedsStaleWeights(*result, shape.num_frozen_stages);
    if (shape.schedule == "gpipe" || shape.num_samples <= shape.batch_size) {
      EXPECT_FALSE(stale) << Describe(shape);
    }
  }
  const PaperShape paper = {"1f1b", 4, 6, 3, 0};
  EXPECT_TRUE(NeedsStaleWeights(*PlayPaperRules(paper, UnitCosts(4), {}), 0));
}

TEST(PaperRules, OptimizerStepsFollowEachBatch) {
  std::vector<StageCost> costs = UnitCosts(2);
  for (StageCost& cost : costs) cost.optimize_s = 5;
  const auto result = PlayPaperRules({"gpipe", 2, 5, 2, 1}, costs, {});
  ASSERT_TRUE(result.ok());
  std::vector<int> steps;
  for (const TimedInstruction& timed : result->trace[1]) {
    if (timed.instruction.op == Op::kOptimize) steps.push_back(timed.step);
  }
  EXPECT_THAT(steps, testing::ElementsAre(0, 1, 2));
  EXPECT_EQ(result->busy_s[1], 5 + 5 + 15);
}

TEST(PaperRules, TheLargestShapeIsPlayed) {
  const auto result = PlayPaperRules({"1f1b", 64, 4096, 4096, 30}, UnitCosts(64), {});
  ASSERT_TRUE(result.ok());
  EXPECT_GE(result->makespan_s, 2 * 4096);
}

TEST(PaperRules, WrongInputsAreNamed) {
  const PaperShape good = {"gpipe", 2, 6, 3, 1};
  const std::pair<std::function<void(PaperShape&)>, const char*> kBroken[] = {
      {[](PaperShape& p) { p.schedule = "pipe"; }, "no schedule `pipe`"},
      {[](PaperShape& p) { p.num_stages = 257; }, "num_stages is 257, not in 1..256"},
      {[](PaperShape& p) { p.num_samples = 0; }, "num_samples is 0"},
      {[](PaperShape& p) { p.batch_size = -1; }, "batch_size is -1"},
      {[](PaperShape& p) { p.num_frozen_stages = 2; }, "num_frozen_stages is 2, not in 0..1"},
      {[](PaperShape& p) { p.num_stages = 3; }, "2 stage costs for 3 stages"},
  };
  for (const auto& [breaks, want] : kBroken) {
    PaperShape shape = good;
    breaks(shape);
    EXPECT_THAT(PlayPaperRules(shape, UnitCosts(2), {}).status().message(), HasSubstr(want));
  }
  std::vector<StageCost> costs = UnitCosts(2);
  costs[1].weight_grad_s = NAN;
  EXPECT_THAT(PlayPaperRules(good, costs, {}).status().message(), HasSubstr("costs[1] has a time"));
  costs[1].weight_grad_s = 1e12;
  EXPECT_THAT(PlayPaperRules(good, costs, {}).status().message(), HasSubstr("can be played"));
  EXPECT_THAT(PlayPaperRules(good, UnitCosts(2), {{}, {}}).status().message(),
              HasSubstr("2 link costs for 1 edges"));
}

}  // namespace
}  // namespace smartpipe
