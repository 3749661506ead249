// Coordinator::Create refuses what no run can be made of; the config refuses it earlier, with key
// and line.
#include <functional>
#include <limits>

#include "freeze_service/core/coordinator.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace smartpipe {
namespace {

using Change = std::function<void(CoordinatorOptions*)>;

std::string MessageOf(const Change& change) {
  CoordinatorOptions options;
  change(&options);
  const auto coordinator = Coordinator::Create(options);
  if (coordinator.ok()) return "ok";
  EXPECT_EQ(coordinator.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(coordinator.status().message());
}

TEST(CoordinatorCreate, RefusesOptionsOutOfRange) {
  using Options = CoordinatorOptions;
  const std::pair<Change, std::string> cases[] = {
      {[](Options*) {}, "ok"},
      {[](Options* o) { o->num_stages = 0; }, "pipeline.stages is 0, not in 1..256"},
      {[](Options* o) { o->num_microbatches = 0; }, "train.microbatches is 0, not in 1..4096"},
      {[](Options* o) { o->schedule = "2f2b"; },
       "pipeline.schedule is \"2f2b\", there are: gpipe, 1f1b, interleaved_1f1b"},
      {[](Options* o) { o->statistic = "cosine"; },
       "freeze.statistic is \"cosine\", there are: norm, vector, corrected"},
      {[](Options* o) { o->rebalance_min_gain = 1; },
       "rebalance.min_gain is 1, it must be at least 0 and below 1"},
      {[](Options* o) {
         o->cuts = {LayerIndex(1), LayerIndex(2)};
       },
       "pipeline.cuts has 2 entries, 2 stages need 1"},
      {[](Options* o) { o->cuts = {LayerIndex(0)}; }, "pipeline.cuts[0] is 0, not in 1..4095"},
      {[](Options* o) {
         o->num_stages = 3, o->cuts = {LayerIndex(2), LayerIndex(2)};
       },
       "pipeline.cuts[1] is 2, not in 3..4095"},
      {[](Options* o) { o->policy.policy = "smart"; },
       "freeze.policy is \"smart\", there are: full, fixed, linear, smartpipe, schedule"},
      {[](Options* o) { o->policy.tau = 0; }, "freeze.tau is 0, it must be above 0"},
      {[](Options* o) { o->policy.tau = std::numeric_limits<double>::quiet_NaN(); },
       "freeze.tau is nan, it must be above 0"},
      {[](Options* o) { o->policy.lambda_max = 1.5; },
       "freeze.lambda_max is 1.5, it must be above 0 and at most 1"},
      {[](Options* o) { o->policy.warmup_intervals = -1; },
       "freeze.warmup_intervals is -1, it must be at least 0"},
      {[](Options* o) { o->policy.hits = 17; }, "freeze.hits is 17, it must be in 1..16"},
      {[](Options* o) { o->policy.min_trainable = 0; },
       "freeze.min_trainable is 0, it must be at least 1"},
      {[](Options* o) { o->policy.fixed_layers = -2; },
       "freeze.fixed_layers is -2, it must be at least 0"},
      {[](Options* o) {
         o->policy.schedule = {{Step(-1), LayerIndex(0)}};
       },
       "freeze.schedule entry 0 is negative: [-1, 0]"},
      {[](Options* o) {
         o->policy.schedule = {{Step(10), LayerIndex(2)}, {Step(20), LayerIndex(1)}};
       },
       "freeze.schedule entry 1 is not after the entry before it: steps must rise and frontiers "
       "never fall"},
  };
  for (const auto& [change, message] : cases) EXPECT_EQ(MessageOf(change), message);
}

TEST(CoordinatorRestore, RefusesASnapshotThatDoesNotFit) {
  CoordinatorState started;
  started.progress.resize(2);
  EXPECT_EQ(Coordinator::Restore({}, started, {}).status().message(),
            "the snapshot has 0 members, 2 of them started, which does not fit 0 verdicts and 2 "
            "workers");
  CoordinatorState stranger;
  stranger.members.push_back({.worker = WorkerId("Not an id")});
  EXPECT_EQ(Coordinator::Restore({}, stranger, {}).status().code(),
            absl::StatusCode::kInvalidArgument);
  CoordinatorOptions no_stage;
  no_stage.num_stages = 0;
  EXPECT_EQ(Coordinator::Restore(no_stage, {}, {}).status().code(),
            absl::StatusCode::kInvalidArgument);
  CoordinatorState decided;
  decided.plan.emplace();
  EXPECT_EQ(Coordinator::Restore({}, decided, {}).status().message(),
            "the snapshot's plan does not fit the verdicts");
}

}  // namespace
}  // namespace smartpipe
