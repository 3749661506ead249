#include "cli/worker_clock.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace smartpipe {
namespace {

using testing::ElementsAre;

constexpr int64_t kS = 1'000'000'000;

TEST(WorkerClock, WithoutReadings) {
  const WorkerClock clock;
  EXPECT_EQ(clock.ToServiceNs(123), 123);
  EXPECT_FALSE(clock.measured());
  EXPECT_EQ(clock.error_ns(), 0);
}

TEST(WorkerClock, InterpolatesBetweenReadings) {
  const WorkerClock clock({{10 * kS, 1000, 5}, {30 * kS, 3000, 7}});
  EXPECT_EQ(clock.OffsetNs(0), 1000);
  EXPECT_EQ(clock.OffsetNs(10 * kS), 1000);
  EXPECT_EQ(clock.OffsetNs(20 * kS), 2000);
  EXPECT_EQ(clock.OffsetNs(30 * kS), 3000);
  EXPECT_EQ(clock.OffsetNs(90 * kS), 3000);
  EXPECT_EQ(clock.error_ns(), 7);
}

TEST(WorkerClock, OfReadingsCloseTogetherTheBestCounts) {
  const WorkerClock clock({{0, 999, 500}, {1 * kS, 10, 3}, {2 * kS, -999, 400}, {60 * kS, 10, 90}});
  EXPECT_EQ(clock.readings().size(), 2u);
  EXPECT_EQ(clock.OffsetNs(0), 10);
  EXPECT_EQ(clock.OffsetNs(2 * kS), 10);
  EXPECT_EQ(clock.error_ns(), 90);
}

TEST(MakeClocks, WorkersOfOneMachineShareTheirReadings) {
  // 0 and 2 agree within their errors; 1 is another machine; 3 was never compared.
  const WorkerClocks clocks =
      MakeClocks({{{0, 1000, 300}}, {{0, 5 * kS, 300}}, {{1, 1200, 100}}, {}});
  EXPECT_THAT(clocks.same_as, ElementsAre(0, 1, 0, 0));
  EXPECT_EQ(clocks.clocks[0].OffsetNs(0), 1200) << "the better reading";
  EXPECT_EQ(clocks.clocks[2].OffsetNs(0), 1200);
  EXPECT_EQ(clocks.clocks[3].OffsetNs(0), 1200);
  EXPECT_EQ(clocks.clocks[1].OffsetNs(0), 5 * kS);
}

TEST(MakeClocks, NobodyWasCompared) {
  const WorkerClocks clocks = MakeClocks({{}, {}});
  EXPECT_THAT(clocks.same_as, ElementsAre(0, 0));
  EXPECT_EQ(clocks.clocks[1].OffsetNs(7), 0);
}

}  // namespace
}  // namespace smartpipe
