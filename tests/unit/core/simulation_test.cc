// Whole runs in virtual time, over a network that loses, delays, doubles and reorders, with workers
// and services that die and an operator who gives orders: whatever happens, what freezes is what a
// calm run with the same orders at the same steps freezes.
#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <queue>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "freeze_service/core/coordinator.h"
#include "freeze_service/core/orders.h"
#include "gtest/gtest.h"
#include "services/base/error_reason.h"
#include "tests/testutil/dice.h"
#include "tests/testutil/seed.h"
#include "tests/unit/core/core_harness.h"

namespace smartpipe {
namespace {

using testutil::Dice;
using testutil::InForce;

#if defined(__SANITIZE_ADDRESS__)
constexpr int kSimulations = 300;
#else
constexpr int kSimulations = 10'000;
#endif
constexpr int kEventsMax = 5000;  // far more than any run needs

struct Setting {
  CoordinatorOptions options;
  RunLength length;
  std::vector<LayerInfo> layers;
  uint64_t gradient_seed = 0;

  /// [layer], a function of the interval alone.
  std::vector<double> Eta(IntervalIndex interval) const {
    Dice dice(gradient_seed * 1000 + static_cast<uint64_t>(interval.value()));
    std::vector<double> eta(layers.size());
    for (double& value : eta) value = 0.5 * dice.Unit() * dice.Unit();
    return eta;
  }
  std::vector<Step> AllSteps() const {
    std::vector<Step> steps;
    for (int64_t step = length.interval_steps; step <= length.num_steps;
         step += length.interval_steps)
      steps.push_back(Step(step));
    return steps;
  }
};

Setting RandomSetting(Dice& dice) {
  Setting setting;
  setting.options.num_stages = static_cast<int32_t>(1 + dice.Below(3));
  setting.options.num_microbatches = 2;
  setting.options.rebalance_enabled = dice.OneIn(2);
  setting.options.recovery.max_restarts = 1000;
  PolicyOptions& policy = setting.options.policy;
  policy.policy = dice.OneOf<std::string>({"smartpipe", "linear", "full", "fixed"});
  policy.tau = 0.2;
  policy.warmup_intervals = 1;
  policy.fixed_layers = 1;
  setting.length = {10 * (4 + dice.Below(6)), 20, 10};
  setting.layers = testutil::MakeLayers(static_cast<int32_t>(4 + dice.Below(3)));
  setting.gradient_seed = static_cast<uint64_t>(dice.Below(1 << 20));
  return setting;
}

/// One run, until it ends.
class Simulation {
 public:
  explicit Simulation(uint64_t seed) : dice_(seed), setting_(RandomSetting(dice_)) {
    coordinator_ = *Coordinator::Create(setting_.options);
    for (int32_t i = 0; i < setting_.options.num_stages; ++i) {
      workers_.push_back({.id = WorkerId(absl::StrCat("w", i))});
      Later([this, i] { Join(workers_[i]); });
    }
    for (int64_t n = dice_.Below(4); n > 0; --n) After(dice_.Below(300), [this] { Harm(); });
    for (int64_t n = dice_.Below(5); n > 0; --n) After(dice_.Below(300), [this] { GiveOrder(); });
  }

  void Play() {
    for (int i = 0; i < kEventsMax && !queue_.empty() && !end_; ++i) {
      const auto run = std::move(queue_.top().run);
      now_ = queue_.top().time;
      queue_.pop();
      run();
      if (testing::Test::HasFatalFailure()) return;
    }
    ASSERT_TRUE(end_.has_value()) << "it stands still: " << Dump();
    for (const OrderRecord& record : coordinator_->orders().records) {
      if (coordinator_->verdicts().empty()) break;  // stopped before it started
      SCOPED_TRACE(absl::StrCat(record.given.request_id, "\n", coordinator_->Dump()));
      ASSERT_NO_FATAL_FAILURE(CheckCarriedOut(record));
    }
    if (end_->success) return;
    ASSERT_TRUE(num_stops_ > 0 && absl::StartsWith(end_->reason, "stopped on request"))
        << end_->reason;
  }

  /// The frontiers of all boundaries in a run without any trouble or change of layout.
  std::vector<LayerIndex> CalmFrontiers() const {
    CoordinatorOptions options = setting_.options;
    options.num_stages = 1;
    auto calm = *Coordinator::Create(options);
    const WorkerId w("w");
    EXPECT_TRUE(calm->Apply(WorkerJoined{w, 1, setting_.length, setting_.layers, {}}, {}).ok());
    const int64_t num_intervals = setting_.length.num_steps / setting_.length.interval_steps;
    for (int64_t interval = 0; interval < num_intervals; ++interval) {
      for (const auto& [boundary, given] : frontier_orders_) {
        if (boundary.value() != interval + 2) continue;
        const auto result = calm->Apply(given, {});
        // What changed nothing here did when it was ordered: others came before it since.
        EXPECT_TRUE(result.ok() ||
                    ReasonOf(result.status()).value_or(ErrorReason()).reason == "NOTHING_TO_DO")
            << result.status();
      }
      const auto result =
          calm->Apply(testutil::MakeReport(*calm, {w}, Rank(0), IntervalIndex(interval),
                                           setting_.Eta(IntervalIndex(interval)), setting_.layers),
                      {});
      EXPECT_TRUE(result.ok()) << result.status();
    }
    return Frontiers(*calm);
  }
  std::vector<LayerIndex> frontiers() const { return Frontiers(*coordinator_); }
  int64_t num_generations() const { return coordinator_->generation().value(); }
  int64_t num_orders() const { return static_cast<int64_t>(accepted_.size()); }
  int64_t num_refused() const { return num_refused_; }
  const Coordinator& coordinator() const { return *coordinator_; }

 private:
  struct Worker {
    WorkerId id;
    int64_t incarnation = 1;
    bool alive = true;
    Generation generation;  // that it takes part in; 0 = none
    Generation ended;       // the newest that it has heard the end of: streams keep their order
    IntervalIndex next;     // interval to run
    bool finished = false;
    std::pair<Generation, IntervalIndex> stored;  // the newest boundary it came to; outlives it
  };
  struct Task {
    int64_t time = 0, order = 0;
    std::function<void()> run;
    bool operator<(const Task& other) const {
      return std::pair(time, order) > std::pair(other.time, other.order);
    }
  };

  /// At the end of the run.
  void CheckCarriedOut(const OrderRecord& record) {
    const Verdict last = coordinator_->verdicts().at(coordinator_->verdicts().last());
    const bool was_reached = record.boundary < last.boundary ||
                             (record.boundary == last.boundary && (end_->success || last.stop));
    if (end_->success) {
      ASSERT_TRUE(record.done);
      ASSERT_FALSE(std::holds_alternative<StopRun>(record.given.order) && was_reached);
    }
    // A stop may have come in between, at once or when a worker was lost.
    if (!end_->success || !was_reached) return;
    if (std::holds_alternative<smartpipe::TakeCheckpoint>(record.given.order)) {
      ASSERT_TRUE(checkpoints_.contains(record.step));
    } else if (const auto* drain = std::get_if<DrainWorker>(&record.given.order)) {
      ASSERT_TRUE(IsDrained(Find(drain->worker)));
    }
  }

  static std::vector<LayerIndex> Frontiers(const Coordinator& coordinator) {
    std::vector<LayerIndex> frontiers;
    for (const Verdict& verdict : InForce(coordinator)) frontiers.push_back(verdict.frontier);
    return frontiers;
  }

  std::string Dump() const {
    std::string text;
    for (const Worker& worker : workers_) {
      absl::StrAppend(&text, worker.id.value(), ": incarnation ", worker.incarnation,
                      worker.alive ? "" : ", dead", ", generation ", worker.generation.value(),
                      ", next interval ", worker.next.value(), worker.finished ? ", finished" : "",
                      busy_.contains(worker.id) ? ", busy" : "", "\n");
    }
    return text + coordinator_->Dump();
  }

  void After(int64_t delay, std::function<void()> run) {
    queue_.push({now_ + delay, ++num_tasks_, std::move(run)});
  }
  /// After the time that a message takes: some overtake others.
  void Later(std::function<void()> run) { After(1 + dice_.Below(8), std::move(run)); }

  // ---- The network ----

  /// Sends until it is answered, as the client does; some come twice, much later too.
  void Send(const Event& event, std::function<bool()> still_wanted,
            std::function<void(const absl::Status&)> on_answer) {
    if (dice_.OneIn(12)) After(dice_.Below(200), [this, event] { (void)Deliver(event); });
    if (dice_.OneIn(8)) {  // the request is lost
      After(20, [=, this] {
        if (still_wanted()) Send(event, still_wanted, on_answer);
      });
      return;
    }
    Later([=, this] {
      const absl::Status status = Deliver(event);
      if (dice_.OneIn(8)) {  // the answer is lost
        After(20, [=, this] {
          if (still_wanted()) Send(event, still_wanted, on_answer);
        });
        return;
      }
      Later([=] {
        if (still_wanted()) on_answer(status);
      });
    });
  }

  absl::Status Deliver(const Event& event) {
    if (dice_.OneIn(60)) RestartService();
    if (const auto* joined = std::get_if<WorkerJoined>(&event)) {
      // The service takes an announcement only from a process whose stream is open.
      const Worker& worker = Find(joined->worker);
      if (!worker.alive || worker.incarnation != joined->incarnation) {
        ++num_refused_;
        return absl::NotFoundError("no open stream");
      }
    }
    const auto result = coordinator_->Apply(event, absl::FromUnixSeconds(now_));
    if (!result.ok()) {
      ++num_refused_;
      return result.status();
    }
    for (const Decision& decision : *result) Publish(decision);
    return absl::OkStatus();
  }

  void RestartService() {
    coordinator_ =
        *Coordinator::Restore(setting_.options, coordinator_->Snapshot(), coordinator_->verdicts());
  }

  // ---- What the service says ----

  void Publish(const Decision& decision) {
    if (const auto* start = std::get_if<StartGeneration>(&decision)) {
      for (const WorkerId& member : start->members) {
        Worker& worker = Find(member);
        const int64_t first = start->step.value() / setting_.length.interval_steps;
        Later([this, &worker, incarnation = worker.incarnation, start = *start, first] {
          if (!worker.alive || worker.incarnation != incarnation ||
              worker.generation >= start.generation || worker.ended >= start.generation)
            return;
          worker.generation = start.generation;
          worker.next = IntervalIndex(first);
          worker.finished = false;
          Run(worker);
        });
      }
    } else if (const auto* verdict = std::get_if<Verdict>(&decision)) {
      const auto [decided, is_new] = frontiers_.emplace(verdict->boundary, verdict->frontier);
      ASSERT_EQ(decided->second, verdict->frontier) << "boundary " << verdict->boundary;
      for (Worker& worker : workers_) Later([this, &worker] { Run(worker); });
    } else if (const auto* end = std::get_if<EndGeneration>(&decision)) {
      for (Worker& worker : workers_) {
        Later([this, &worker, incarnation = worker.incarnation, generation = end->generation] {
          if (!worker.alive || worker.incarnation != incarnation || worker.generation > generation)
            return;
          worker.ended = generation;
          if (!IsDrained(worker)) Join(worker);
        });
      }
    } else if (const auto* accepted = std::get_if<OrderAccepted>(&decision)) {
      ASSERT_TRUE(accepted_.emplace(accepted->request_id, accepted->step).second);
      const OrderRecord& record = *FindOrder(coordinator_->orders(), accepted->request_id);
      OrderGiven given = record.given;
      given.step = accepted->step;
      if (std::holds_alternative<FreezeLayers>(given.order) ||
          std::holds_alternative<UnfreezeLayers>(given.order) ||
          std::holds_alternative<ChangePolicy>(given.order))
        frontier_orders_.emplace_back(accepted->boundary, given);
      num_stops_ += std::holds_alternative<StopRun>(given.order) ? 1 : 0;
      if (std::holds_alternative<PauseRun>(given.order)) After(150, [this] { Resume(); });
    } else if (const auto* over = std::get_if<EndRun>(&decision)) {
      end_ = *over;
    }
  }

  bool IsDrained(const Worker& worker) const {
    const std::vector<WorkerId>& drained = coordinator_->orders().drained;
    return std::find(drained.begin(), drained.end(), worker.id) != drained.end();
  }
  Worker& Find(const WorkerId& id) {
    return *std::find_if(workers_.begin(), workers_.end(),
                         [&id](const Worker& worker) { return worker.id == id; });
  }

  // ---- Workers ----

  void Join(Worker& worker) {
    const int64_t incarnation = worker.incarnation;
    const Generation before = worker.generation;
    WorkerJoined joined{worker.id,
                        incarnation,
                        setting_.length,
                        setting_.layers,
                        {checkpoints_.begin(), checkpoints_.end()}};
    Send(
        joined,
        [&worker, incarnation, before] {
          return worker.alive && worker.incarnation == incarnation && worker.generation == before;
        },
        [this, &worker](const absl::Status& status) {
          // The end of the generation has not been everywhere, or the old process is a member.
          if (!status.ok() && !IsDrained(worker)) After(20, [this, &worker] { Join(worker); });
        });
  }

  /// Goes on with what it may: the next interval, or the end.
  void Run(Worker& worker) {
    if (!worker.alive || worker.finished || worker.generation != coordinator_->generation() ||
        coordinator_->state() != RunState::kRunning || busy_.contains(worker.id))
      return;
    const VerdictHistory& verdicts = coordinator_->verdicts();
    const int64_t num_intervals = setting_.length.num_steps / setting_.length.interval_steps;
    const bool is_done = worker.next.value() == num_intervals;
    if (!is_done && worker.next.value() >= verdicts.size()) return;  // waits
    StoreLayers(worker);
    if (is_done || verdicts.stops(worker.next)) {
      worker.finished = true;
      Finish(worker);
      return;
    }
    busy_.insert(worker.id);
    const Generation generation = worker.generation;
    const int64_t incarnation = worker.incarnation;
    After(3 + dice_.Below(20), [this, &worker, generation, incarnation] {
      busy_.erase(worker.id);
      const bool is_current =
          worker.alive && worker.incarnation == incarnation && worker.generation == generation &&
          coordinator_->generation() == generation && coordinator_->state() == RunState::kRunning;
      if (!is_current) return Run(worker);
      Report(worker);
    });
  }

  void Report(Worker& worker) {
    std::vector<WorkerId> members;
    for (int32_t rank = 0; rank < coordinator_->execution().num_workers(); ++rank)
      members.push_back(coordinator_->plan()->placement[rank].front());
    const auto place = std::find(members.begin(), members.end(), worker.id);
    std::vector<LayerInfo> costs = setting_.layers;
    for (LayerInfo& layer : costs) layer.cost.forward_s *= 0.5 + dice_.Unit();
    const IntervalReported report = testutil::MakeReport(
        *coordinator_, members, Rank(static_cast<int32_t>(place - members.begin())), worker.next,
        setting_.Eta(worker.next), costs);
    busy_.insert(worker.id);
    const Generation generation = worker.generation;
    const int64_t incarnation = worker.incarnation;
    Send(
        report,
        [this, &worker, generation, incarnation] {
          const bool wanted = worker.alive && worker.incarnation == incarnation &&
                              worker.generation == generation &&
                              coordinator_->generation() == generation;
          if (!wanted && busy_.erase(worker.id) > 0) Later([this, &worker] { Run(worker); });
          return wanted;
        },
        [this, &worker](const absl::Status& status) {
          busy_.erase(worker.id);
          if (!status.ok()) return;  // its generation is over, as it will hear
          ++worker.next;
          Run(worker);
        });
  }

  /// A worker has come to a boundary that has its verdict. A checkpoint there is complete with the
  /// last one.
  void StoreLayers(Worker& come) {
    const IntervalIndex boundary = come.next;
    come.stored = {come.generation, boundary};
    const bool all = std::all_of(workers_.begin(), workers_.end(), [&](const Worker& worker) {
      return IsDrained(worker) || (worker.stored.first == coordinator_->generation() &&
                                   worker.stored.second >= boundary);
    });
    const bool is_ordered = boundary.value() < coordinator_->verdicts().size() &&
                            (coordinator_->verdicts().at(boundary).stop ||
                             coordinator_->verdicts().at(boundary).checkpoint);
    if (all && (is_ordered || dice_.OneIn(3)))
      checkpoints_.insert(Step(boundary.value() * setting_.length.interval_steps));
  }

  void Finish(Worker& worker) {
    const Generation generation = worker.generation;
    const int64_t incarnation = worker.incarnation;
    Send(
        WorkerFinished{worker.id, generation, {}},
        [this, &worker, generation, incarnation] {
          return worker.alive && worker.incarnation == incarnation &&
                 worker.generation == generation && coordinator_->generation() == generation;
        },
        [](const absl::Status&) {});
  }

  // ---- Trouble ----

  void Harm() {
    if (coordinator_->state() == RunState::kFinished) return;
    Worker& worker = workers_[dice_.Below(static_cast<int64_t>(workers_.size()))];
    if (!worker.alive || IsDrained(worker)) return;
    if (dice_.OneIn(3)) {
      (void)Deliver(FaultReported{worker.id, worker.generation, "rank 1 is gone"});
      return;
    }
    worker.alive = false;
    busy_.erase(worker.id);
    const WorkerLost lost{worker.id, worker.incarnation, "its connection broke"};
    After(dice_.Below(30), [this, lost] { (void)Deliver(lost); });
    After(10 + dice_.Below(40), [this, &worker, lost] {
      worker.alive = true;
      ++worker.incarnation;
      worker.generation = Generation(0);
      (void)Deliver(lost);  // a new process of the id tells that the old one is gone
      Join(worker);
    });
  }

  void GiveOrder() {
    OrderGiven given{.request_id = absl::StrCat("r", ++num_requests_),
                     .who = "alice",
                     .why = "",
                     .step = {},
                     .order = {}};
    const auto num_layers = static_cast<int64_t>(setting_.layers.size());
    switch (dice_.OneIn(12) ? 8 : dice_.Below(8)) {
      case 8:
        given.order = StopRun{.at_once = dice_.OneIn(4)};
        break;
      case 0:
        given.order = PauseRun{};
        break;
      case 1:
        given.order = RebalanceStages{};
        break;
      case 2:
        given.order = smartpipe::TakeCheckpoint{};
        break;
      case 3:
        given.order = DrainWorker{workers_[dice_.Below(static_cast<int64_t>(workers_.size()))].id};
        break;
      case 4: {
        ChangePolicy change;
        if (!dice_.OneIn(3))
          change.policy = dice_.OneOf<std::string>({"smartpipe", "linear", "full"});
        if (dice_.OneIn(3)) change.tau = dice_.Unit();
        given.order = change;
        break;
      }
      case 5:
        given.order = UnfreezeLayers{LayerIndex(static_cast<int32_t>(dice_.Below(num_layers)))};
        break;
      default:
        given.order = FreezeLayers{LayerIndex(static_cast<int32_t>(1 + dice_.Below(num_layers)))};
    }
    if (dice_.OneIn(3)) {
      given.step = Step(setting_.length.interval_steps *
                        dice_.Below(setting_.length.num_steps / setting_.length.interval_steps));
    }
    Send(
        given, [this] { return !end_.has_value(); }, [](const absl::Status&) {});
  }

  void Resume() {
    const OrderGiven given{.request_id = absl::StrCat("r", ++num_requests_),
                           .who = "alice",
                           .why = "",
                           .step = {},
                           .order = ResumeRun{}};
    Send(
        given, [this] { return !end_.has_value(); }, [](const absl::Status&) {});
  }

  Dice dice_;
  const Setting setting_;
  std::unique_ptr<Coordinator> coordinator_;
  std::vector<Worker> workers_;
  std::set<WorkerId> busy_;
  std::set<Step> checkpoints_;
  std::priority_queue<Task> queue_;
  int64_t now_ = 0, num_tasks_ = 0, num_requests_ = 0, num_refused_ = 0, num_stops_ = 0;
  std::map<IntervalIndex, LayerIndex> frontiers_;
  std::map<std::string, Step> accepted_;
  std::vector<std::pair<IntervalIndex, OrderGiven>> frontier_orders_;
  std::optional<EndRun> end_;
};

TEST(CoordinatorSimulation, WhateverHappensTheSameFreezes) {
  int64_t num_generations = 0, num_orders = 0, num_refused = 0, num_stopped = 0;
  for (int i = 0; i < kSimulations && !HasFailure(); ++i) {
    const uint64_t seed = testutil::TestSeed() * kSimulations + static_cast<uint64_t>(i);
    SCOPED_TRACE(absl::StrCat("simulation ", seed));
    Simulation simulation(seed);
    ASSERT_NO_FATAL_FAILURE(simulation.Play());
    std::vector<LayerIndex> calm = simulation.CalmFrontiers();
    num_stopped += simulation.frontiers().size() < calm.size() ? 1 : 0;
    calm.resize(std::min(calm.size(), simulation.frontiers().size()));  // it may have been stopped
    ASSERT_EQ(simulation.frontiers(), calm) << simulation.coordinator().Dump();
    num_generations += simulation.num_generations();
    num_orders += simulation.num_orders();
    num_refused += simulation.num_refused();
  }
  std::cout << kSimulations << " simulations, " << num_generations << " generations, " << num_orders
            << " orders accepted, " << num_refused << " messages refused, " << num_stopped
            << " runs stopped\n";
  EXPECT_GT(num_stopped, kSimulations / 100);
  EXPECT_GT(num_generations, kSimulations * 5 / 4);
  EXPECT_GT(num_orders, kSimulations / 2);
  EXPECT_GT(num_refused, kSimulations / 2);
}

}  // namespace
}  // namespace smartpipe
