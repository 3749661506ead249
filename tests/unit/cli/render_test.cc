#include "cli/render.h"

#include <limits>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace smartpipe {
namespace {

using testing::HasSubstr;
using testing::Not;
using testing::SizeIs;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

Progress Example() {
  return {.step = 656,
          .num_steps = 1872,
          .steps_per_epoch = 312,
          .loss = 0.4123,
          .samples_per_second = 812.3,
          .frontier = 2,
          .num_layers = 7,
          .cuts = {4},
          .eta_s = 83.2};
}

TEST(FormatDurationTest, EachScale) {
  EXPECT_EQ(FormatDuration(0), "0.0 s");
  EXPECT_EQ(FormatDuration(12.34), "12.3 s");
  EXPECT_EQ(FormatDuration(59.94), "59.9 s");
  EXPECT_EQ(FormatDuration(59.96), "1 min 00 s");
  EXPECT_EQ(FormatDuration(245.4), "4 min 05 s");
  EXPECT_EQ(FormatDuration(3599.6), "1 h 00 min");
  EXPECT_EQ(FormatDuration(3723), "1 h 02 min");
  EXPECT_EQ(FormatDuration(-1), "?");
  EXPECT_EQ(FormatDuration(kNan), "?");
  EXPECT_EQ(FormatDuration(1e300), "277777 h 46 min");
}

TEST(FormatRateTest, EachScale) {
  EXPECT_EQ(FormatRate(0), "0.0");
  EXPECT_EQ(FormatRate(9.94), "9.9");
  EXPECT_EQ(FormatRate(9.96), "10");
  EXPECT_EQ(FormatRate(9999), "9999");
  EXPECT_EQ(FormatRate(12'345), "12.3k");
  EXPECT_EQ(FormatRate(456'789), "457k");
  EXPECT_EQ(FormatRate(kNan), "-");
}

TEST(LiveLineTest, ShowsTheEssentialOn79ColumnsAndEverythingOn99) {
  EXPECT_EQ(LiveLine(Example(), 79),
            "[=>   ] step  656/1872 loss 0.412  812 samples/s frontier 2 1 min 23 s to train");
  EXPECT_EQ(LiveLine(Example(), 99),
            "[===>     ] epoch 3/6 step  656/1872 loss 0.412  812 samples/s frontier 2 cut 4 "
            "1 min 23 s to train");
}

TEST(LiveLineTest, NeitherItsPartsNorItsBarChangeDuringARun) {
  Progress later = Example();
  later.num_layers = 26;
  Progress early = later;
  early.step = 1;
  early.loss = 12.3456;
  early.samples_per_second = 1234;
  early.frontier = 0;
  early.cuts = {13};
  early.eta_s = -1;
  for (const int width : {50, 79, 99}) {
    const std::string one = LiveLine(early, width), other = LiveLine(later, width);
    EXPECT_EQ(one.size(), other.size());
    EXPECT_EQ(one.find(']'), other.find(']'));
    EXPECT_EQ(one.find("loss"), other.find("loss"));
  }
}

TEST(LiveLineTest, BarFromEmptyToFull) {
  Progress progress{.step = 0, .num_steps = 10, .cuts = {}};
  EXPECT_THAT(LiveLine(progress, 99), testing::StartsWith("[>                     ]"));
  progress.step = 10;
  EXPECT_THAT(LiveLine(progress, 99), testing::StartsWith("[======================]"));
}

TEST(LiveLineTest, NeverWiderThanTheTerminal) {
  for (const int64_t num_steps : {int64_t{1}, int64_t{1872}, int64_t{123'456'789}}) {
    for (const double loss : {0.1, 123.4, 1e30, kNan}) {
      for (const size_t num_cuts : {0, 1, 3, 15, 63}) {
        for (int width = 1; width <= 100; ++width) {
          Progress progress{.step = num_steps / 2,
                            .num_steps = num_steps,
                            .steps_per_epoch = 100,
                            .loss = loss,
                            .samples_per_second = 98'765,
                            .frontier = 12,
                            .cuts = std::vector<int64_t>(num_cuts, 17),
                            .eta_s = 123'456};
          EXPECT_LE(static_cast<int>(LiveLine(progress, width).size()), width);
        }
      }
    }
  }
}

TEST(LiveLineTest, KeepsTheStepLongest) {
  Progress progress = Example();
  progress.cuts = std::vector<int64_t>(15, 10);
  EXPECT_THAT(LiveLine(progress, 79), Not(HasSubstr("cuts")));
  EXPECT_EQ(LiveLine(progress, 15), "step  656/1872");
}

TEST(PlainLineTest, SpellsItOut) {
  EXPECT_EQ(PlainLine(Example()),
            "epoch 3/6  step 656/1872  loss 0.412  812 samples/s  frontier 2  cut 4  1 min "
            "23 s to train");
  EXPECT_EQ(PlainLine({.step = 0, .num_steps = 5, .loss = kNan, .cuts = {}, .eta_s = -1}),
            "step 0/5  loss -  0.0 samples/s  frontier 0  cut -");
}

TEST(PlainLineTest, TheLastStepIsInTheLastEpoch) {
  Progress progress = Example();
  progress.step = progress.num_steps;
  EXPECT_THAT(PlainLine(progress), HasSubstr("epoch 6/6"));
}

TEST(FormatDecisionTest, SaysWhatChangesAndWhy) {
  EXPECT_EQ(FormatDecision({.step = 704,
                            .old_frontier = 0,
                            .frontier = 2,
                            .old_cuts = {3},
                            .cuts = {4},
                            .reason = "Because."}),
            "from step 704 on: frontier 0 -> 2, cut 3 -> 4: Because.");
  EXPECT_EQ(FormatDecision({.step = 8,
                            .old_frontier = 2,
                            .frontier = 2,
                            .old_cuts = {2, 3},
                            .cuts = {2, 4},
                            .reason = "Why."}),
            "from step 8 on: cuts 2,3 -> 2,4: Why.");
  // Not twice: the reason says where the cuts are.
  EXPECT_EQ(
      FormatDecision(
          {.step = 8, .old_cuts = {2}, .cuts = {4}, .reason = "moves 2 layers; cuts [0,4) [4,7)"}),
      "from step 8 on: moves 2 layers; cuts [0,4) [4,7)");
  EXPECT_EQ(FormatDecision({.cuts = {3}, .reason = "start: cuts [0,3) [3,7)"}),
            "start: cuts [0,3) [3,7)");
  EXPECT_EQ(FormatDecision({.step = 8, .old_cuts = {2}, .cuts = {2}, .reason = "keep: no gain."}),
            "step 8: keep: no gain.");
}

TEST(FormatColumnsTest, AlignsAndTrims) {
  EXPECT_EQ(FormatColumns({{"", "full", "smartpipe"}, {"wall time", "1:23", "59.9 s"}, {"x"}}),
            "           full  smartpipe\n"
            "wall time  1:23     59.9 s\n"
            "x\n");
}

TEST(WrapHangingTest, KeepsLinesAndHangsTheirRest) {
  EXPECT_EQ(WrapHanging("one two three\n  four five six", 9, 2),
            "one two\n  three\n  four\n    five\n    six\n");
  EXPECT_EQ(WrapHanging("muchtoolong ab\n", 5, 1), "muchtoolong\n ab\n");
  EXPECT_EQ(WrapHanging("a\n\nb", 5, 1), "a\n\nb\n");
  EXPECT_EQ(WrapHanging("", 5, 1), "");
}

TEST(WrapTest, BreaksAtSpaces) {
  EXPECT_EQ(Wrap("one two three", 9, 2), "  one two\n  three\n");
  EXPECT_EQ(Wrap("muchtoolong ab", 5, 0), "muchtoolong\nab\n");
  EXPECT_EQ(Wrap("", 5, 0), "");
}

}  // namespace
}  // namespace smartpipe
