// Random runs: whatever order events come in and however wrong they are, the core keeps its
// promises.
#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "freeze_service/core/coordinator.h"
#include "freeze_service/core/decision_text.h"
#include "freeze_service/core/orders.h"
#include "gtest/gtest.h"
#include "pipeline/plan.h"
#include "services/base/limits.h"
#include "tests/testutil/dice.h"
#include "tests/testutil/seed.h"
#include "tests/unit/core/core_harness.h"

namespace smartpipe {
namespace {

using testutil::Dice;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();
#if defined(__SANITIZE_ADDRESS__)
constexpr int kRuns = 15;  // ten times as slow
#else
constexpr int kRuns = 60;
#endif
constexpr int kEventsMax = 400;

class Fuzzer {
 public:
  explicit Fuzzer(uint64_t seed) : dice_(seed) {
    options_.num_stages = static_cast<int32_t>(1 + dice_.Below(4));
    options_.num_microbatches = static_cast<int32_t>(1 + dice_.Below(4));
    options_.schedule = dice_.OneOf<std::string>({"gpipe", "1f1b"});
    options_.statistic = dice_.OneOf<std::string>({"norm", "vector", "corrected"});
    options_.rebalance_enabled = !dice_.OneIn(4);
    options_.rebalance_min_gain = dice_.OneOf<double>({0, 0.03, 0.2});
    num_layers_ = static_cast<int32_t>(options_.num_stages + dice_.Below(6));
    layers_ = testutil::MakeLayers(num_layers_);
    if (dice_.OneIn(3)) {
      for (int32_t i = 1; i < options_.num_stages; ++i) options_.cuts.push_back(LayerIndex(i));
    }
    // Short runs reach their end, long ones pay for moves.
    const int64_t num_steps = dice_.OneIn(2) ? 1 + dice_.Below(90) : 5000;
    length_ = {num_steps, 1 + dice_.Below(30), 1 + dice_.Below(12)};
    PolicyOptions& policy = options_.policy;
    policy.policy = dice_.OneOf(PolicyNames());
    policy.tau = 0.3;
    policy.lambda_max = dice_.OneOf<double>({0.1, 0.5, 1});
    policy.warmup_intervals = static_cast<int32_t>(dice_.Below(3));
    policy.hits = static_cast<int32_t>(1 + dice_.Below(2));
    policy.min_trainable = static_cast<int32_t>(1 + dice_.Below(3));
    policy.fixed_layers = static_cast<int32_t>(dice_.Below(num_layers_ + 2));
    for (int32_t i = 0, frontier = 0; i < 5; ++i) {
      frontier += static_cast<int32_t>(dice_.Below(3));
      policy.schedule.emplace_back(Step(2 * i * length_.interval_steps), LayerIndex(frontier));
    }
    options_.recovery.max_restarts = static_cast<int32_t>(dice_.Below(6));
    first_options_ = options_;
    coordinator_ = *Coordinator::Create(options_);
  }

  void Play() {
    for (int i = 0; i < kEventsMax && !testing::Test::HasFailure(); ++i) {
      Apply(NextEvent());
      if (dice_.OneIn(10)) StartAgain();
    }
    CheckReplay();
  }
  std::vector<Verdict> verdicts() const { return testutil::InForce(*coordinator_); }

 private:
  WorkerId RandomWorker() {
    return WorkerId(absl::StrCat("w", dice_.Below(options_.num_stages + 1)));
  }
  Generation RandomGeneration() {
    return dice_.OneIn(20) ? Generation(dice_.Below(3)) : coordinator_->generation();
  }
  double RandomEta() {
    if (dice_.OneIn(25)) return dice_.OneOf<double>({kNaN, kInf, -1});  // -1: a norm of zero
    return dice_.Unit() * dice_.Unit();
  }

  Event NextEvent() {
    const bool waiting = coordinator_->state() == RunState::kWaiting;
    const int64_t roll = dice_.Below(100);
    if (waiting ? roll < 70 : roll < 2) return RandomJoin();
    if (roll < 92) return RandomReport();
    if (roll < 95) {
      return WorkerLost{RandomWorker(), waiting || dice_.OneIn(40) ? 1 : 7, "its connection broke"};
    }
    if (roll < 97) return WorkerFailed{RandomWorker(), Generation(dice_.OneIn(20) ? 1 : 5), "boom"};
    if (roll < 97 + (coordinator_->orders().paused_at ? 2 : 1)) return RandomOrder();
    if (dice_.OneIn(2)) return WorkerFinished{RandomWorker(), RandomGeneration()};
    if (dice_.OneIn(8)) return FaultReported{RandomWorker(), RandomGeneration(), "rank 1 is gone"};
    if (dice_.OneIn(ended_ ? 4 : 40)) return RandomResumption();
    return dice_.OneIn(3) ? Event(RandomOrder()) : Event(RandomJoin());
  }

  OrderGiven RandomOrder() {
    OrderGiven given{.request_id = absl::StrCat("r", dice_.Below(1000)),
                     .who = "alice",
                     .why = dice_.OneIn(2) ? "why not" : "",
                     .step = {},
                     .order = {}};
    if (dice_.OneIn(3)) given.step = Step(dice_.Below(12) * length_.interval_steps);
    const LayerIndex frontier(static_cast<int32_t>(dice_.Below(num_layers_ + 2)) - 1);
    switch (dice_.Below(16)) {
      case 0:
        given.order = StopRun{dice_.OneIn(4)};
        break;
      case 1:
        given.order = DrainWorker{RandomWorker()};
        break;
      case 2:
      case 3:
        given.order = PauseRun{};
        break;
      case 4:
      case 5:
      case 6:
        given.order = ResumeRun{};
        break;
      case 7: {
        ChangePolicy change;
        if (dice_.OneIn(2)) change.policy = dice_.OneOf(PolicyNames());
        change.hits = static_cast<int32_t>(dice_.Below(3));
        given.order = change;
        break;
      }
      case 8:
      case 9: {
        RebalanceStages rebalance;
        for (int32_t i = 1; dice_.OneIn(2) && i < options_.num_stages; ++i)
          rebalance.cuts.push_back(LayerIndex(i));
        given.order = rebalance;
        break;
      }
      case 10:
        given.order = TakeCheckpoint{};
        break;
      case 11:
      case 12:
        given.order = FreezeLayers{frontier};
        break;
      default:
        given.order = UnfreezeLayers{frontier};
    }
    return given;
  }

  RunResumed RandomResumption() {
    RunResumed resumed{.execution = options_, .step = {}};
    resumed.execution.num_stages = static_cast<int32_t>(1 + dice_.Below(std::min(4, num_layers_)));
    resumed.execution.cuts.clear();
    if (dice_.OneIn(3)) resumed.step = Step(dice_.Below(30));
    return resumed;
  }

  WorkerJoined RandomJoin() {
    WorkerJoined joined = {RandomWorker(), 1, length_, layers_, {}};
    for (int64_t step = 0; step < length_.num_steps && step < 60; step += 1 + dice_.Below(9)) {
      joined.checkpoints.push_back(Step(step));
    }
    if (dice_.OneIn(10)) joined.incarnation = 2;
    if (dice_.OneIn(20)) joined.length.num_steps += 1;
    if (dice_.OneIn(20)) joined.layers.pop_back();
    if (dice_.OneIn(20)) joined.layers[0].cost.forward_s = dice_.OneOf<double>({-1, kNaN, 0, 1});
    if (dice_.OneIn(20)) joined.layers[0].cost.state_bytes += 1;
    if (dice_.OneIn(30)) joined.worker = WorkerId("Not an id");
    return joined;
  }

  Event RandomReport() {
    const auto& plan = coordinator_->plan();
    std::vector<WorkerId> members;
    if (plan.has_value()) {
      for (const auto& stage : plan->placement) members.push_back(stage.front());
    } else {
      members = {RandomWorker()};
    }
    if (!reports_.empty() && dice_.OneIn(12)) {  // a repeat, sometimes with other contents
      IntervalReported report = dice_.OneOf(reports_);
      if (dice_.OneIn(3)) report.step_s += 1;
      return report;
    }
    const Rank rank(static_cast<int32_t>(dice_.Below(static_cast<int64_t>(members.size()))));
    next_interval_.resize(members.size(), 0);
    int64_t interval = next_interval_[rank.value()];
    if (dice_.OneIn(15)) interval += dice_.Below(4) - 2;
    std::vector<double> eta(num_layers_);
    for (double& value : eta) value = RandomEta();
    if (dice_.OneIn(20)) {  // lasting changes, on top of the noise
      layers_[dice_.Below(num_layers_)].cost.forward_s = 0.001 * (1 + dice_.Below(20));
    }
    std::vector<LayerInfo> costs = layers_;
    for (LayerInfo& layer : costs) layer.cost.forward_s *= 1 + 0.3 * dice_.Unit();
    IntervalReported report =
        testutil::MakeReport(*coordinator_, members, rank, IntervalIndex(interval), eta, costs);
    if (dice_.OneIn(10)) Spoil(&report);
    return report;
  }

  void Spoil(IntervalReported* report) {
    switch (dice_.Below(8)) {
      case 0:
        report->worker = RandomWorker();
        break;
      case 1:
        report->generation = Generation(dice_.Below(4));
        break;
      case 2:
        report->plan_epoch = report->plan_epoch + (dice_.Below(3) - 1);
        break;
      case 3:
        report->step_s = dice_.OneOf<double>({kNaN, -1, kInf, 0});
        break;
      case 4:
        report->switch_moved_bytes = dice_.Below(2000) - 1000;
        break;
      case 5:
        if (!report->costs.empty()) report->costs.pop_back();
        break;
      case 6:
        if (!report->costs.empty())
          report->costs[0].forward_s = dice_.OneOf<double>({kNaN, -1, 1e300});
        break;
      default:
        if (report->statistics.empty()) break;
        report->statistics[0].layer = LayerIndex(static_cast<int32_t>(dice_.Below(num_layers_)));
        report->statistics[0].grad_norm_l2 = dice_.OneOf<double>({kNaN, -1, 0});
    }
  }

  void Apply(const Event& event) {
    const std::string before = coordinator_->Dump();
    const int64_t num_verdicts_before = coordinator_->verdicts().size();
    const auto result = coordinator_->Apply(event, absl::UnixEpoch());
    events_.push_back(event);
    if (coordinator_->plan().has_value()) AgreeOnTheRun();
    absl::StrAppend(&text_, testutil::Text(result, num_layers_), "\n");
    if (!result.ok()) {
      ASSERT_EQ(coordinator_->Dump(), before) << "refused: " << result.status();
      return;
    }
    if (const auto* report = std::get_if<IntervalReported>(&event)) CountReport(*report, before);
    if (const auto* resumed = std::get_if<RunResumed>(&event)) {
      static_cast<ExecutionOptions&>(options_) = resumed->execution;
      ended_ = false;
    }
    ASSERT_NO_FATAL_FAILURE(CheckDecisions(*result, num_verdicts_before));
    ASSERT_NO_FATAL_FAILURE(CheckState());
  }

  // From a snapshot, as the service does after a crash; CheckReplay goes without.
  void StartAgain() {
    auto restored = Coordinator::Restore(options_, coordinator_->Snapshot(), told_);
    ASSERT_TRUE(restored.ok()) << restored.status();
    ASSERT_EQ((*restored)->Dump(), coordinator_->Dump());
    coordinator_ = *std::move(restored);
  }

  // The members may all have told of another run than this fuzzer's: that one is played then.
  void AgreeOnTheRun() {
    length_ = coordinator_->length();
    layers_.resize(coordinator_->evidence().layers.size());
    num_layers_ = static_cast<int32_t>(layers_.size());
  }

  void CountReport(const IntervalReported& report, const std::string& before) {
    if (coordinator_->Dump() == before) return;  // a repeat
    reports_.push_back(report);
    const auto& placement = coordinator_->plan()->placement;
    for (size_t rank = 0; rank < placement.size(); ++rank) {
      if (placement[rank].front() == report.worker) ++next_interval_[rank];
    }
  }

  void CheckDecisions(const std::vector<Decision>& decisions, int64_t num_verdicts_before) {
    int64_t boundary = num_verdicts_before;
    for (const Decision& decision : decisions) {
      if (const auto* start = std::get_if<StartGeneration>(&decision)) {
        first_boundary_ = FirstBoundary(start->step);
        boundary = first_boundary_;
        reports_.clear();
        next_interval_.assign(start->members.size(), start->step.value() / length_.interval_steps);
        ASSERT_EQ(start->members.size(), static_cast<size_t>(options_.num_stages));
      }
      if (const auto* accepted = std::get_if<OrderAccepted>(&decision)) {
        ASSERT_TRUE(orders_.emplace(accepted->request_id, accepted->boundary).second);
        if (!accepted->request_id.empty()) CountOrder(*accepted);
      }
      if (const auto* drained = std::get_if<WorkerDrained>(&decision)) {
        static_cast<ExecutionOptions&>(options_) = AfterDrains(options_, 1);
        ASSERT_FALSE(drained->reason.empty());
      }
      if (std::holds_alternative<EndRun>(decision)) {
        ASSERT_FALSE(ended_) << "a run ends once";
        ended_ = true;
      }
      const auto* verdict = std::get_if<Verdict>(&decision);
      if (verdict == nullptr) continue;
      ASSERT_EQ(verdict->boundary.value(), boundary++);
      told_.Add(*verdict);
      Verdict kept = coordinator_->verdicts().at(verdict->boundary);
      kept.eta = verdict->eta;
      ASSERT_EQ(Describe(kept, num_layers_), Describe(*verdict, num_layers_));
      // Whatever is lost, a boundary's frontier is decided once.
      const auto [decided, is_new] = frontiers_.emplace(verdict->boundary, verdict->frontier);
      ASSERT_EQ(decided->second, verdict->frontier) << "boundary " << verdict->boundary;
      ASSERT_EQ(static_cast<int32_t>(verdict->eta.size()), is_new ? num_layers_ : 0);
    }
    ASSERT_EQ(boundary, coordinator_->verdicts().size()) << "each verdict is published once";
  }

  void CountOrder(const OrderAccepted& accepted) {
    const OrderRecord& record = *FindOrder(coordinator_->orders(), accepted.request_id);
    if (std::holds_alternative<UnfreezeLayers>(record.given.order))
      unfreezes_.insert(accepted.boundary);
  }

  // The frontier never falls unless it was ordered there.
  bool MayFollow(const Verdict& verdict, const Verdict& before) const {
    return verdict.frontier >= before.frontier || unfreezes_.contains(verdict.boundary);
  }

  // What is carried out is marked so, and nothing else.
  void CheckOrders() {
    const Orders& orders = coordinator_->orders();
    const int64_t num_verdicts = coordinator_->verdicts().size();
    for (const OrderRecord& record : orders.records) {
      if (record.done) continue;
      ASSERT_GE(record.boundary.value(), ended_ ? 0 : num_verdicts) << record.given.request_id;
    }
    if (!orders.paused_at.has_value() || coordinator_->state() != RunState::kRunning) return;
    ASSERT_LE(num_verdicts, std::max(orders.paused_at->value(), first_boundary_ + 1));
  }

  int64_t FirstBoundary(Step step) const {
    return std::min(step.value() / length_.interval_steps,
                    (length_.num_steps - 1) / length_.interval_steps);
  }

  // One verdict per boundary in order, epochs rise by one, the frontier never falls, each layer has
  // one owner.
  void CheckState() {
    const std::vector<Verdict> verdicts = this->verdicts();
    const int64_t num_boundaries =
        (length_.num_steps + length_.interval_steps - 1) / length_.interval_steps;
    int64_t num_complete = 0;
    if (!next_interval_.empty()) {
      num_complete = *std::min_element(next_interval_.begin(), next_interval_.end());
    }
    if (coordinator_->state() == RunState::kRunning) {
      int64_t num_due = std::min(num_boundaries, 2 + num_complete);
      if (const auto& paused_at = coordinator_->orders().paused_at; paused_at.has_value())
        num_due = std::min(num_due, std::max(paused_at->value(), first_boundary_ + 1));
      const auto num_verdicts = static_cast<int64_t>(verdicts.size());
      if (verdicts.back().stop)
        num_due = std::min(num_due, num_verdicts);  // nothing comes behind it
      ASSERT_EQ(num_verdicts, num_due);
    }
    ASSERT_NO_FATAL_FAILURE(CheckOrders());
    for (size_t b = 1; b < verdicts.size(); ++b) {
      ASSERT_TRUE(MayFollow(verdicts[b], verdicts[b - 1])) << "boundary " << b;
    }
    // Older ones had other members.
    if (coordinator_->state() != RunState::kRunning) return;
    for (size_t b = first_boundary_; b < verdicts.size(); ++b) {
      const bool is_first = b == static_cast<size_t>(first_boundary_);
      ASSERT_NO_FATAL_FAILURE(CheckVerdict(verdicts[b], is_first ? nullptr : &verdicts[b - 1]));
    }
    ASSERT_GE(coordinator_->SpeedupLimitOfRun(), 1);
    ASSERT_TRUE(std::isfinite(coordinator_->SpeedupLimitOfRun()));
  }

  void CheckVerdict(const Verdict& verdict, const Verdict* before) {
    ASSERT_EQ(verdict.step.value(), verdict.boundary.value() * length_.interval_steps);
    ASSERT_LT(verdict.step.value(), length_.num_steps);
    ASSERT_LE(verdict.frontier.value(), std::max(0, num_layers_ - options_.policy.min_trainable));
    ASSERT_FALSE(verdict.reason.empty());
    ASSERT_LE(static_cast<int64_t>(verdict.reason.size()), limits::kReasonBytesMax);
    std::vector<int> owners(num_layers_);
    for (int32_t stage = 0; stage < options_.num_stages; ++stage) {
      const LayerRange range = StageLayers(verdict.cuts, num_layers_, StageIndex(stage));
      ASSERT_GE(range.size(), 1);
      for (LayerIndex i = range.first_layer; i < range.end_layer; ++i) ++owners[i.value()];
    }
    for (int count : owners) ASSERT_EQ(count, 1);
    if (verdict.plan.has_value()) {
      ASSERT_TRUE(ValidatePlan(*verdict.plan, num_layers_).ok());
      const Step first_step = coordinator_->history().first_step;
      ASSERT_EQ(verdict.plan->effective_step, before == nullptr ? first_step : verdict.step);
      ASSERT_EQ(verdict.plan->cuts, verdict.cuts);
      ASSERT_EQ(verdict.plan->frontier, verdict.frontier);
      ASSERT_EQ(verdict.plan->plan_epoch, verdict.plan_epoch);
    }
    if (before == nullptr) return;
    ASSERT_TRUE(MayFollow(verdict, *before)) << "boundary " << verdict.boundary;
    ASSERT_EQ(verdict.plan_epoch - before->plan_epoch, verdict.plan.has_value() ? 1 : 0);
    ASSERT_EQ(verdict.moves,
              LayerMoves(before->cuts, verdict.cuts, num_layers_, options_.num_stages));
    if (!verdict.plan.has_value()) {
      ASSERT_EQ(verdict.frontier, before->frontier);
      ASSERT_EQ(verdict.cuts, before->cuts);
    }
    if (!options_.rebalance_enabled && !absl::StrContains(verdict.reason, "as ordered")) {
      ASSERT_EQ(verdict.cuts, before->cuts);
    }
  }

  void CheckReplay() {
    auto again = *Coordinator::Create(first_options_);
    std::string text;
    for (const Event& event : events_) {
      absl::StrAppend(&text, testutil::Text(again->Apply(event, absl::UnixEpoch()), num_layers_),
                      "\n");
    }
    EXPECT_EQ(text, text_);
    EXPECT_EQ(again->Dump(), coordinator_->Dump());
  }

  Dice dice_;
  CoordinatorOptions first_options_, options_;
  RunLength length_;
  int64_t first_boundary_ = 0;                     // of the newest generation
  std::map<IntervalIndex, LayerIndex> frontiers_;  // as decided first
  int32_t num_layers_ = 0;
  std::vector<LayerInfo> layers_;
  std::unique_ptr<Coordinator> coordinator_;
  std::vector<int64_t> next_interval_;  // [rank]
  std::vector<IntervalReported> reports_;
  std::vector<Event> events_;
  std::string text_;
  bool ended_ = false;
  std::map<std::string, IntervalIndex> orders_;  // accepted
  std::set<IntervalIndex> unfreezes_;
  VerdictHistory told_;  // from what was published alone, as after a restart
};

TEST(CoordinatorFuzz, KeepsItsPromisesAndReplaysByteForByte) {
  int64_t num_verdicts = 0, num_plans = 0, num_moves = 0, num_moves_alone = 0;
  for (int run = 0; run < kRuns && !HasFailure(); ++run) {
    SCOPED_TRACE(absl::StrCat("run ", run));
    Fuzzer fuzzer(testutil::TestSeed() * kRuns + run);
    fuzzer.Play();
    for (const Verdict& verdict : fuzzer.verdicts()) {
      ++num_verdicts;
      num_plans += verdict.plan.has_value();
      num_moves += !verdict.moves.empty();
      num_moves_alone += !verdict.moves.empty() && verdict.reason.rfind("moves ", 0) == 0;
    }
  }
  std::cout << num_verdicts << " verdicts, " << num_plans << " plans, " << num_moves
            << " of them move layers, " << num_moves_alone << " without a freeze\n";
  // The random runs must get somewhere.
  EXPECT_GT(num_verdicts, 3 * kRuns);
  EXPECT_GT(num_plans, kRuns / 2);
  if (kRuns < 60) return;  // too few for what is rare
  EXPECT_GT(num_moves, 0);
  EXPECT_GT(num_moves_alone, 0);
}

// Plays a whole run with the given gradients and costs; returns the frontier of every boundary.
std::vector<LayerIndex> PlayFrontiers(uint64_t gradient_seed, uint64_t cost_seed,
                                      int32_t num_stages, int64_t* num_moves) {
  CoordinatorOptions options;
  options.num_stages = num_stages;
  options.policy.lambda_max = 0.3;
  auto coordinator = *Coordinator::Create(options);
  Dice gradient_dice(gradient_seed), cost_dice(cost_seed);
  std::vector<LayerInfo> layers = testutil::MakeLayers(8);
  std::vector<WorkerId> members;
  for (int32_t i = 0; i < num_stages; ++i) members.push_back(WorkerId(absl::StrCat("w", i)));
  for (const WorkerId& member : members) {
    EXPECT_TRUE(coordinator->Apply(WorkerJoined{member, 1, {3000, 500, 100}, layers}, {}).ok());
  }
  for (int64_t interval = 0; interval < 30; ++interval) {
    std::vector<double> eta(layers.size());
    for (double& value : eta) value = 0.2 * gradient_dice.Unit();
    for (LayerInfo& layer : layers) layer.cost.forward_s = 0.001 * (1 + 9 * cost_dice.Unit());
    for (int32_t rank = 0; rank < num_stages; ++rank) {
      const auto result =
          coordinator->Apply(testutil::MakeReport(*coordinator, members, Rank(rank),
                                                  IntervalIndex(interval), eta, layers),
                             {});
      EXPECT_TRUE(result.ok()) << result.status();
    }
  }
  std::vector<LayerIndex> frontiers;
  for (const Verdict& verdict : testutil::InForce(*coordinator)) {
    frontiers.push_back(verdict.frontier);
    *num_moves += static_cast<int64_t>(verdict.moves.size());
  }
  return frontiers;
}

TEST(CoordinatorFuzz, WhatFreezesDependsOnGradientsAlone) {
  int64_t num_moves = 0;
  for (uint64_t seed = 0; seed < 10; ++seed) {
    const std::vector<LayerIndex> frontiers = PlayFrontiers(seed, 1, 1, &num_moves);
    EXPECT_EQ(frontiers.size(), 30);
    EXPECT_GT(frontiers.back(), LayerIndex(0));
    for (int32_t num_stages = 1; num_stages <= 4; ++num_stages) {
      EXPECT_EQ(PlayFrontiers(seed, 2 + num_stages, num_stages, &num_moves), frontiers);
    }
  }
  EXPECT_GT(num_moves, 100) << "the cuts were meant to differ";
}

}  // namespace
}  // namespace smartpipe
