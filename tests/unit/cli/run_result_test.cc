#include "cli/run_result.h"

#include <limits>

#include "absl/strings/str_split.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace smartpipe {
namespace {

using testing::HasSubstr;
using testing::Not;

RunResult Example(const std::string& policy, double wall_seconds) {
  return {
      .policy = policy,
      .run_dir = "runs/demo/" + policy,
      .steps = 1872,
      .epochs = 6,
      .num_layers = 7,
      .num_stages = 2,
      .frozen_layers = 4,
      .rebalances = 1,
      .layers_moved = 2,
      .test_accuracy = 0.9102,
      .train_loss = 0.25,
      .wall_seconds = wall_seconds,
      .total_seconds = wall_seconds + 10,
      .samples_per_second = 1441.6,
      .speedup_limit = 1.5,
      .verdict_wait_seconds = 0.01,
      .report_seconds = 0.2,
      .checkpoint_seconds = 0.4,
      .checkpoint_bytes_written = 3000,
      .checkpoint_bytes_shared = 1000,
      .weights_sha256 = std::string(64, 'a'),
      .decisions = {
          {.step = 312, .plan_epoch = 1, .frontier = 2, .cuts = {4}, .reason = "First \"one\"."},
          {.step = 400, .plan_epoch = 1, .frontier = 2, .cuts = {4}, .reason = "No gain."},
          {.step = 624, .plan_epoch = 2, .frontier = 4, .cuts = {5}, .reason = "Second."}}};
}

void ExpectWithin80Columns(const std::string& text) {
  for (const absl::string_view line : absl::StrSplit(text, '\n'))
    EXPECT_LE(line.size(), 80u) << line;
}

TEST(SummaryJsonTest, HoldsTheContract) {
  const auto json = nlohmann::json::parse(SummaryJson(Example("smartpipe", 83)));
  EXPECT_EQ(json["steps"], 1872);
  EXPECT_TRUE(json["epochs"].is_number_integer());
  EXPECT_EQ(json["num_layers"], 7);
  EXPECT_EQ(json["num_stages"], 2);
  EXPECT_EQ(json["frozen_layers"], 4);
  EXPECT_EQ(json["rebalances"], 1);
  EXPECT_EQ(json["layers_moved"], 2);
  EXPECT_EQ(json["test_accuracy"], 0.9102);
  EXPECT_EQ(json["train_loss"], 0.25);
  EXPECT_EQ(json["wall_seconds"], 83);
  EXPECT_EQ(json["total_seconds"], 93);
  EXPECT_EQ(json["samples_per_second"], 1441.6);
  EXPECT_EQ(json["checkpoint_seconds"], 0.4);
  EXPECT_EQ(json["checkpoint_bytes_written"], 3000);
  EXPECT_EQ(json["checkpoint_bytes_shared"], 1000);
  EXPECT_EQ(json["weights_sha256"].get<std::string>().size(), 64u);
  ASSERT_EQ(json["decisions"].size(), 3u);
  EXPECT_EQ(json["decisions"][0], (nlohmann::json{{"step", 312},
                                                  {"plan_epoch", 1},
                                                  {"frontier", 2},
                                                  {"cuts", {4}},
                                                  {"reason", "First \"one\"."}}));
}

TEST(SummaryJsonTest, WhatIsNoNumberIsNull) {
  RunResult result = Example("full", 83);
  result.test_accuracy.reset();
  result.train_loss = std::numeric_limits<double>::quiet_NaN();
  result.epochs = 0.5;
  result.run_dir = "runs/\xff";
  const auto json = nlohmann::json::parse(SummaryJson(result));
  EXPECT_TRUE(json["test_accuracy"].is_null());
  EXPECT_TRUE(json["train_loss"].is_null());
  EXPECT_EQ(json["epochs"], 0.5);
}

TEST(NumFreezesTest, CountsRaisesOnly) { EXPECT_EQ(NumFreezes(Example("smartpipe", 83)), 2); }

TEST(ResultTableTest, FitsAndNamesTheFiles) {
  const std::string table = ResultTable(Example("smartpipe", 83.2));
  ExpectWithin80Columns(table);
  EXPECT_THAT(table, HasSubstr("test accuracy            91.02 %\n"));
  EXPECT_THAT(table, HasSubstr("train loss               0.2500, mean of the last epoch\n"));
  EXPECT_THAT(table, HasSubstr("frozen layers            4 of 7, in 2 decisions\n"));
  EXPECT_THAT(table, HasSubstr("speed-up by saved work   1.50x at most\n"));
  EXPECT_THAT(table, HasSubstr("files                    runs/demo/smartpipe\n"));
}

RunResult Unfrozen(const std::string& policy, double wall_seconds) {
  RunResult result = Example(policy, wall_seconds);
  result.frozen_layers = result.rebalances = result.layers_moved = 0;
  result.speedup_limit = 1;
  result.decisions.clear();
  return result;
}

TEST(ResultTableTest, WhatDidNotHappenHasNoRow) {
  const std::string table = ResultTable(Unfrozen("full", 83.2));
  EXPECT_THAT(table, HasSubstr("frozen layers            0 of 7\n"));
  EXPECT_THAT(table, Not(HasSubstr("rebalances")));
  EXPECT_THAT(table, Not(HasSubstr("saved work")));
}

TEST(ComparisonTableTest, WithoutAFreezeItSaysSoAndWhatToChange) {
  const std::string table = ComparisonTable(Unfrozen("full", 83.2), Unfrozen("smartpipe", 60));
  ExpectWithin80Columns(table);
  EXPECT_THAT(table, HasSubstr("Nothing was frozen with policy smartpipe"));
  EXPECT_THAT(table, HasSubstr("freeze.tau"));
  EXPECT_THAT(table, Not(HasSubstr("times as fast")));
  EXPECT_THAT(table, Not(HasSubstr("rebalances")));
}

TEST(ComparisonTableTest, IdleTimeIsOnlyNamedWhereThereIsAPipeline) {
  RunResult full = Unfrozen("full", 100), frozen = Example("smartpipe", 50);
  EXPECT_THAT(ComparisonTable(full, frozen), HasSubstr("idle time"));
  full.num_stages = frozen.num_stages = 1;
  EXPECT_THAT(ComparisonTable(full, frozen), Not(HasSubstr("idle time")));
  EXPECT_THAT(ComparisonTable(full, frozen), HasSubstr("machine's"));
}

TEST(ComparisonTableTest, SpeedUpStandsBesideItsLimit) {
  const std::string table = ComparisonTable(Example("full", 83.2), Example("smartpipe", 60));
  ExpectWithin80Columns(table);
  EXPECT_THAT(table, HasSubstr("speed-up                     1.00x       1.39x\n"));
  EXPECT_THAT(table, HasSubstr("speed-up by saved work       1.50x       1.50x\n"));
  EXPECT_THAT(
      table,
      HasSubstr("smartpipe trained 1.39 times as fast as full, with +0.00 points of accuracy."));
  EXPECT_THAT(table, HasSubstr("runs/demo/full\n"));
}

TEST(ComparisonJsonTest, HoldsBothRuns) {
  const auto json =
      nlohmann::json::parse(ComparisonJson(Example("full", 90), Example("smartpipe", 60)));
  EXPECT_EQ(json["speedup"], 1.5);
  EXPECT_EQ(json["full"]["wall_seconds"], 90);
  EXPECT_EQ(json["smartpipe"]["policy"], "smartpipe");
}

}  // namespace
}  // namespace smartpipe
