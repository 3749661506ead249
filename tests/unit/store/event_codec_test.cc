#include "freeze_service/store/event_codec.h"

#include <cmath>
#include <limits>
#include <string>
#include <variant>
#include <vector>

#include "absl/strings/escaping.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace smartpipe {
namespace {

using ::testing::HasSubstr;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

// The format on disk: a change of these bytes needs a new version.
TEST(EventCodec, BytesOfEachKind) {
  const auto hex = [](const Event& event) { return absl::BytesToHexString(EncodeEvent(event)); };
  EXPECT_EQ(hex(WorkerLost{WorkerId("w0"), 258, "x"}),
            "0602"              // version, kind
            "020000007730"      // "w0"
            "0201000000000000"  // 258
            "0100000078");      // "x"
  EXPECT_EQ(hex(OrderGiven{"r", "a", "", Step(7), StopRun{true}}),
            "0605"
            "0100000072"          // request_id
            "0100000061"          // who
            "00000000"            // why
            "010700000000000000"  // a step
            "0801");              // kind of order, at once
  EXPECT_EQ(hex(WorkerFailed{WorkerId("w1"), Generation(1), "m"}),
            "0603"
            "020000007731"
            "0100000000000000"
            "010000006d");
  EXPECT_EQ(absl::BytesToHexString(EncodeDecisions({EndRun{true, "a"}})),
            "06"
            "01000000"
            "02"
            "01"
            "0100000061");
}

TEST(EventCodec, KeepsEveryField) {
  IntervalReported report;
  report.worker = WorkerId("w1");
  report.generation = Generation(3);
  report.plan_epoch = PlanEpoch(4);
  report.interval = IntervalIndex(5);
  report.statistics = {{.layer = LayerIndex(6),
                        .frozen = true,
                        .has_previous = true,
                        .grad_norm_l2 = kNaN,
                        .previous_grad_norm_l2 = -0.0,
                        .grad_difference_norm_l2 = std::numeric_limits<double>::infinity(),
                        .microbatch_grad_norm2_mean = 1e-310,
                        .previous_microbatch_grad_norm2_mean = 0.1,
                        .num_microbatches = 7,
                        .num_nonfinite_steps = -8}};
  report.costs = {{.forward_s = 1, .activation_bytes = 9}};
  report.step_s = 0.25;
  report.link_latency_s = 10;
  const absl::StatusOr<Event> read = DecodeEvent(EncodeEvent(report));
  ASSERT_TRUE(read.ok()) << read.status();
  const auto& again = std::get<IntervalReported>(*read);
  EXPECT_EQ(again.worker, report.worker);
  EXPECT_EQ(again.interval, report.interval);
  ASSERT_EQ(again.statistics.size(), 1);
  EXPECT_TRUE(std::isnan(again.statistics[0].grad_norm_l2));
  EXPECT_TRUE(std::signbit(again.statistics[0].previous_grad_norm_l2));
  EXPECT_EQ(again.statistics[0].microbatch_grad_norm2_mean, 1e-310);
  EXPECT_EQ(again.statistics[0].num_nonfinite_steps, -8);
  EXPECT_EQ(again.costs[0].activation_bytes, 9);
  EXPECT_EQ(again.link_latency_s, 10);
  EXPECT_EQ(EncodeEvent(*read), EncodeEvent(report));
}

TEST(EventCodec, RefusesWhatItDoesNotWrite) {
  const std::string good = EncodeEvent(WorkerFinished{WorkerId("w0"), Generation(1), {}});
  ASSERT_TRUE(DecodeEvent(good).ok());
  for (size_t size = 0; size < good.size(); ++size)
    EXPECT_TRUE(absl::IsDataLoss(DecodeEvent(good.substr(0, size)).status())) << size;
  EXPECT_THAT(std::string(DecodeEvent(good + "x").status().message()),
              HasSubstr("bytes are left over"));
  std::string kind = good;
  kind[1] = 8;
  EXPECT_TRUE(absl::IsDataLoss(DecodeEvent(kind).status()));
  std::string version = good;
  version[0] = 3;
  EXPECT_EQ(DecodeEvent(version).status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(DecodeEvent(version).status().message()), HasSubstr("version 3"));
}

}  // namespace
}  // namespace smartpipe
