#include "pipeline/partition.h"

#include <cmath>
#include <ctime>
#include <functional>
#include <random>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace smartpipe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<LayerIndex> Cuts(std::initializer_list<int> cuts) {
  std::vector<LayerIndex> out;
  for (int cut : cuts) out.emplace_back(cut);
  return out;
}

LayerCost Layer(double forward_s) {
  return {.forward_s = forward_s, .input_grad_s = forward_s, .weight_grad_s = forward_s};
}

PlannerInput Even(int num_layers, int num_stages, int num_microbatches, int frontier = 0) {
  PlannerInput input;
  input.layers.assign(num_layers, Layer(1));
  input.num_stages = num_stages;
  input.num_microbatches = num_microbatches;
  input.frontier = LayerIndex(frontier);
  return input;
}

void ForAllCuts(int num_layers, int num_cuts, std::vector<LayerIndex>* cuts,
                const std::function<void()>& visit) {
  if (static_cast<int>(cuts->size()) == num_cuts) return visit();
  const int from = cuts->empty() ? 1 : cuts->back().value() + 1;
  for (int cut = from; cut < num_layers; ++cut) {
    cuts->emplace_back(cut);
    ForAllCuts(num_layers, num_cuts, cuts, visit);
    cuts->pop_back();
  }
}

double BruteForce(const PlannerInput& input) {
  double best_s = INFINITY;
  std::vector<LayerIndex> cuts;
  ForAllCuts(input.layers.size(), input.num_stages - 1, &cuts,
             [&] { best_s = std::min(best_s, *SimulatedStepSeconds(input, cuts)); });
  return best_s;
}

// harsh: always unequal workers, links and a frontier.
PlannerInput RandomInput(std::mt19937& random, bool harsh = false) {
  auto below = [&](int n) { return static_cast<int>(random() % n); };
  auto unit = [&] { return std::uniform_real_distribution<double>(0, 1)(random); };
  PlannerInput input;
  const int num_layers = 2 + below(9);
  const bool spread = below(2), whole = below(4) == 0, optimizes = below(2);
  for (int i = 0; i < num_layers; ++i) {
    LayerCost layer;
    layer.forward_s = spread ? std::exp(4 * unit() - 2) : 0.5 + unit();
    if (whole) layer.forward_s = 1 + below(3);
    layer.input_grad_s = layer.forward_s * (whole ? 1 : 0.5 + unit());
    layer.weight_grad_s = layer.forward_s * (whole ? 1 : 0.5 + unit());
    layer.optimize_s = optimizes ? 0.3 * layer.forward_s * unit() : 0;
    layer.output_bytes = 100 + below(1000);
    input.layers.push_back(layer);
  }
  input.num_stages = std::min(num_layers, 1 + below(5));
  input.num_microbatches = 1 + below(8);
  input.schedule = below(2) ? "gpipe" : "1f1b";
  if (const int each = 2 + below(2), workers = 1 + below(3);
      each * workers <= num_layers && below(3) == 0) {
    input.schedule = "interleaved_1f1b";
    input.stages_per_worker = each;
    input.num_stages = each * workers;
  }
  input.run_ahead = below(4) > 0;
  if (below(4) == 0) input.num_cores = 1 + below(input.num_workers());
  input.frontier = LayerIndex(harsh || below(3) ? below(num_layers) : 0);
  if (harsh || below(4) == 0) {
    for (int w = 0; w < input.num_workers(); ++w) input.worker_speed.push_back(0.5 + unit());
  }
  if (harsh || below(4) == 0) {
    input.link_bytes_per_s = 2000;
    input.link_latency_s = 0.1 * unit();
  }
  return input;
}

std::string Describe(const PlannerInput& input) {
  return absl::StrCat(input.schedule, " layers=", input.layers.size(), " stages=", input.num_stages,
                      " workers=", input.num_workers(), " cores=", input.num_cores,
                      " run_ahead=", input.run_ahead, " microbatches=", input.num_microbatches,
                      " frontier=", input.frontier.value(), " links=", input.link_bytes_per_s,
                      " speeds=", input.worker_speed.size());
}

// budget: what Partition may spend; small ones show the quality of the search where it cannot be
// exact.
void CompareWithBruteForce(int num_cases, int64_t budget, double equal_share, double slower_max,
                           bool harsh = false) {
  std::mt19937 random(2023);
  int num_equal = 0;
  double worst = 1;
  for (int i = 0; i < num_cases; ++i) {
    const PlannerInput input = RandomInput(random, harsh);
    const double best_s = BruteForce(input);
    const auto found = Partition(input, budget);
    ASSERT_TRUE(found.ok()) << found.status();
    EXPECT_NEAR(found->step_s, *SimulatedStepSeconds(input, found->cuts), 1e-12 * found->step_s);
    EXPECT_GE(found->step_s, best_s * (1 - 1e-9));
    EXPECT_GE(found->step_s, found->floor_s * (1 - 1e-9)) << Describe(input);
    EXPECT_GE(found->floor_s, found->even_s);
    const double ratio = found->step_s / best_s;
    num_equal += ratio <= 1 + 1e-9;
    if (ratio > worst) worst = ratio;
    EXPECT_LE(ratio, slower_max) << Describe(input);
  }
  std::printf("budget %lld: %d of %d equal to brute force, the worst %.4f times as slow\n",
              static_cast<long long>(budget), num_equal, num_cases, worst);
  EXPECT_GE(num_equal, equal_share * num_cases);
}

// A sanitizer looks at memory, not at numbers: few cases will do, in minutes less.
#if defined(__SANITIZE_ADDRESS__)
constexpr int kNumCases = 25, kNumSmall = 10, kNumLarge = 2;
#else
constexpr int kNumCases = 2500, kNumSmall = 600, kNumLarge = 40;
#endif

TEST(Partition, EqualsBruteForce) { CompareWithBruteForce(kNumCases, kSearchBudget, 0.99, 1.01); }

TEST(Partition, EqualsBruteForceWithUnequalWorkersLinksAndAFrontier) {
  CompareWithBruteForce(kNumCases, kSearchBudget, 0.99, 1.01, /*harsh=*/true);
}

TEST(Partition, IsGoodWithALittleBudgetToo) { CompareWithBruteForce(kNumSmall, 8000, 0.8, 1.3); }

// Too large for brute force: against five times the budget.
TEST(Partition, IsGoodWhereItCannotTryAll) {
  std::mt19937 random(2023);
  double worst = 1;
  for (int i = 0; i < kNumLarge; ++i) {
    PlannerInput input = RandomInput(random, i % 2);
    input.layers.clear();
    for (int n = 24 + random() % 40; n > 0; --n) {
      const double forward_s = 0.5 + 0.001 * (random() % 1000);
      input.layers.push_back({.forward_s = forward_s,
                              .input_grad_s = forward_s * (0.5 + 0.001 * (random() % 1000)),
                              .weight_grad_s = forward_s,
                              .output_bytes = static_cast<int64_t>(100 + random() % 1000)});
    }
    input.frontier = LayerIndex(random() % input.layers.size());
    input.num_stages = input.stages_per_worker * (6 / input.stages_per_worker + random() % 3);
    input.worker_speed.clear();
    for (int w = 0; i % 2 && w < input.num_workers(); ++w) {
      input.worker_speed.push_back(0.5 + 0.001 * (random() % 1000));
    }
    const double ratio = Partition(input)->step_s / Partition(input, 5 * kSearchBudget)->step_s;
    EXPECT_LE(ratio, 1.03) << Describe(input);
    worst = std::max(worst, ratio);
  }
  std::printf("the worst of %d is %.4f times as slow as with five times the budget\n", kNumLarge,
              worst);
}

TEST(Partition, SplitsEqualLayersEvenly) {
  EXPECT_THAT(Partition(Even(8, 4, 8))->cuts,
              ElementsAre(LayerIndex(2), LayerIndex(4), LayerIndex(6)));
  EXPECT_THAT(Partition(Even(8, 1, 8))->cuts, ElementsAre());
  EXPECT_THAT(Partition(Even(3, 3, 1))->cuts, ElementsAre(LayerIndex(1), LayerIndex(2)));
}

TEST(Partition, FrozenLayersMoveToTheFront) {
  // 12 of 24 layers frozen: they cost 1 unit each, the others 3; half of 12 * 1 + 12 * 3 is 24.
  const auto result = Partition(Even(24, 2, 8, 12));
  ASSERT_TRUE(result.ok());
  EXPECT_GE(result->cuts[0].value(), 14);
  EXPECT_LT(result->step_s, *SimulatedStepSeconds(Even(24, 2, 8, 12), Cuts({12})) + 1e-9);
}

TEST(Partition, FewerTrainableLayersThanStages) {
  PlannerInput input = Even(8, 4, 4, 7);  // one trainable layer
  const auto result = Partition(input);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(NumFrozenStages(result->cuts, 8, input.frontier), 3);
}

TEST(Partition, OneLayerThatDwarfsTheRestStandsAlone) {
  PlannerInput input = Even(9, 3, 8);
  input.layers[4] = Layer(100);
  EXPECT_THAT(Partition(input)->cuts, ElementsAre(LayerIndex(4), LayerIndex(5)));
  // It alone takes longer than its share of all work: 8 forwards and backwards of 300.
  EXPECT_DOUBLE_EQ(Partition(input)->floor_s, 8 * 300);
  input.worker_speed = {1, 2, 1};
  EXPECT_DOUBLE_EQ(Partition(input)->floor_s, 8 * 300 / 2);
}

TEST(Partition, AFasterWorkerGetsMore) {
  PlannerInput input = Even(12, 2, 64);
  input.worker_speed = {1, 2};
  EXPECT_THAT(Partition(input)->cuts, ElementsAre(LayerIndex(4)));
}

TEST(Partition, GpipeAndOneFOneBWantDifferentCuts) {
  // Layers 0 and 1 have a long backward, the others a long forward.
  PlannerInput input = Even(6, 2, 16);
  for (int i = 0; i < 6; ++i) {
    input.layers[i] = {
        .forward_s = i < 2 ? 1.0 : 3.0, .input_grad_s = 0, .weight_grad_s = i < 2 ? 8.0 : 1.0};
  }
  const auto one = Partition(input);
  input.schedule = "gpipe";
  const auto two = Partition(input);
  EXPECT_NE(one->cuts, two->cuts);
}

// Freezing one more layer never makes the best step slower.
TEST(Partition, FreezingMoreIsNeverSlower) {
  std::mt19937 random(7);
  for (int i = 0; i < 150; ++i) {
    PlannerInput input = RandomInput(random);
    double before_s = INFINITY;
    for (int frontier = 0; frontier < static_cast<int>(input.layers.size()); ++frontier) {
      input.frontier = LayerIndex(frontier);
      const double step_s = Partition(input)->step_s;
      EXPECT_LE(step_s, before_s * (1 + 1e-9)) << Describe(input);
      before_s = step_s;
    }
  }
}

// [worker]
std::vector<int64_t> WorkerBytes(const PlannerInput& input, const std::vector<LayerIndex>& cuts) {
  std::vector<int64_t> bytes(input.num_workers(), 0);
  for (int s = 0; s < input.num_stages; ++s) {
    const LayerRange layers = StageLayers(cuts, input.layers.size(), StageIndex(s));
    bytes[s % input.num_workers()] += StageMemoryBytes(input, StageIndex(s), layers);
  }
  return bytes;
}

TEST(Partition, AnEmptyPipelineOfFrozenStagesMustBeFilledAgain) {
  PlannerInput input = Even(4, 4, 4);
  const std::vector<LayerIndex> cuts = {LayerIndex(1), LayerIndex(2), LayerIndex(3)};
  EXPECT_DOUBLE_EQ(*RefillSeconds(input, cuts), 0) << "every step begins with an empty pipeline";
  input.frontier = LayerIndex(3);
  EXPECT_DOUBLE_EQ(*RefillSeconds(input, cuts), 3 * input.layers[0].forward_s)
      << "the last stage waits for the first micro-batch to pass three frozen ones";
  input.run_ahead = false;
  EXPECT_DOUBLE_EQ(*RefillSeconds(input, cuts), 0);
  EXPECT_FALSE(RefillSeconds(input, {}).ok());
}

TEST(Partition, KeepsTheMemoryLimitOrSaysWhoIsShort) {
  PlannerInput input = Even(6, 2, 4);
  for (LayerCost& layer : input.layers) {
    layer.param_bytes = 100;
    layer.state_bytes = 200;
    layer.activation_bytes = 50;
    layer.output_bytes = 10;
  }
  // 1F1B on two stages: 2 and 1 in flight. A layer needs 300 + 100 at stage 0, 300 + 50 at stage 1;
  // either has 2 receive buffers of 10, stage 1 moreover 2 gradients under way.
  EXPECT_EQ(StageMemoryBytes(input, StageIndex(0), {LayerIndex(0), LayerIndex(3)}), 3 * 400 + 20);
  EXPECT_EQ(StageMemoryBytes(input, StageIndex(1), {LayerIndex(3), LayerIndex(6)}), 3 * 350 + 40);
  input.frontier = LayerIndex(3);  // frozen: weights, 4 outputs under way and one that waits
  EXPECT_EQ(StageMemoryBytes(input, StageIndex(0), {LayerIndex(0), LayerIndex(3)}), 300 + 50);
  EXPECT_EQ(StageMemoryBytes(input, StageIndex(1), {LayerIndex(3), LayerIndex(6)}), 3 * 350 + 40);
  input.frontier = LayerIndex(0);

  EXPECT_THAT(Partition(input)->cuts, ElementsAre(LayerIndex(3)));
  input.memory_limit_bytes = 4 * 350 + 20;
  EXPECT_TRUE(Partition(input).ok());
  input.memory_limit_bytes = 1100;
  const absl::Status status = Partition(input).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(status.message(), HasSubstr("worker 0 needs 1220 bytes, 120 too many"));
  EXPECT_THAT(status.message(), HasSubstr("[0,3) [3,6)"));
}

TEST(Partition, StagesOfAWorkerShareItsMemory) {
  PlannerInput input = Even(4, 4, 1);
  input.schedule = "interleaved_1f1b";
  input.stages_per_worker = 2;
  for (int i = 0; i < 4; ++i) input.layers[i].state_bytes = i == 0 ? 900 : 100;
  input.memory_limit_bytes = 1000;  // worker 0 has layers 0 and 2
  EXPECT_TRUE(Partition(input).ok());
  input.memory_limit_bytes = 999;
  EXPECT_THAT(Partition(input).status().message(),
              HasSubstr("no cuts fit memory_limit_bytes = 999: with the least demanding, [0,1) "
                        "[1,2) [2,3) [3,4), worker 0 needs 1000 bytes, 1 too many"));
}

TEST(Partition, MemoryLimitMatchesBruteForceOnRandomCases) {
  std::mt19937 random(11);
  int num_none = 0, num_costly = 0;
  for (int i = 0; i < 400; ++i) {
    PlannerInput input = RandomInput(random);
    int64_t most = 0;
    for (LayerCost& layer : input.layers) {
      layer.param_bytes = 10 + random() % 100;
      layer.state_bytes = 2 * layer.param_bytes;
      layer.activation_bytes = random() % 200;
      layer.output_bytes = random() % 50;
      most += layer.state_bytes + layer.param_bytes + 4 * layer.activation_bytes;
    }
    input.memory_limit_bytes = 1 + random() % most;
    double best_s = INFINITY, free_s = INFINITY;
    int64_t least = INT64_MAX;  // the largest worker's bytes of the least demanding cuts
    std::vector<LayerIndex> cuts;
    const int num_layers = static_cast<int>(input.layers.size());
    ForAllCuts(num_layers, input.num_stages - 1, &cuts, [&] {
      const double step_s = *SimulatedStepSeconds(input, cuts);
      free_s = std::min(free_s, step_s);
      const std::vector<int64_t> bytes = WorkerBytes(input, cuts);
      least = std::min(least, *absl::c_max_element(bytes));
      if (*absl::c_max_element(bytes) <= input.memory_limit_bytes)
        best_s = std::min(best_s, step_s);
    });
    const auto found = Partition(input);
    ASSERT_EQ(found.ok(), std::isfinite(best_s)) << found.status();
    num_none += !found.ok();
    num_costly += found.ok() && best_s > free_s;
    if (!found.ok()) {
      EXPECT_THAT(found.status().message(),
                  HasSubstr(absl::StrCat("needs ", least, " bytes, ",
                                         least - input.memory_limit_bytes, " too many")));
      continue;
    }
    EXPECT_LE(found->step_s, best_s * 1.01) << Describe(input);
  }
  std::printf("no plan fits in %d of 400, the limit costs time in %d\n", num_none, num_costly);
}

TEST(Partition, WrongInputsAreNamed) {
  const std::pair<std::function<void(PlannerInput&)>, const char*> kBroken[] = {
      {[](PlannerInput& i) { i.layers.clear(); }, "number of layers is 0"},
      {[](PlannerInput& i) { i.num_stages = 7; }, "num_stages is 7, not in 1..6"},
      {[](PlannerInput& i) { i.num_stages = 0; }, "num_stages is 0"},
      {[](PlannerInput& i) { i.num_microbatches = 0; }, "num_microbatches is 0"},
      {[](PlannerInput& i) { i.frontier = LayerIndex(6); }, "frontier is 6, not in 0..5"},
      {[](PlannerInput& i) { i.layers[3].forward_s = NAN; }, "layers[3].forward_s is nan"},
      {[](PlannerInput& i) { i.layers[2].weight_grad_s = -1; }, "layers[2].weight_grad_s is -1"},
      {[](PlannerInput& i) { i.layers[2].param_bytes = -1; }, "layers[2].param_bytes is -1"},
      {[](PlannerInput& i) { i.layers[2].activation_bytes = INT64_MAX; },
       "the planner counts up to"},
      {[](PlannerInput& i) { i.worker_speed = {1}; }, "worker_speed has 1 entries for 2 workers"},
      {[](PlannerInput& i) {
         i.worker_speed = {1, 0};
       },
       "worker_speed[1] is 0"},
      {[](PlannerInput& i) { i.link_latency_s = INFINITY; }, "link_latency_s is inf"},
      {[](PlannerInput& i) { i.memory_limit_bytes = -1; }, "memory_limit_bytes is -1"},
      {[](PlannerInput& i) { i.schedule = "pipe"; }, "did you mean `gpipe`"},
  };
  for (const auto& [breaks, want] : kBroken) {
    PlannerInput input = Even(6, 2, 4);
    breaks(input);
    const auto result = Partition(input);
    EXPECT_EQ(result.status().code(), absl::StatusCode::kInvalidArgument) << want;
    EXPECT_THAT(result.status().message(), HasSubstr(want));
  }
  EXPECT_THAT(SimulatedStepSeconds(Even(6, 2, 4), Cuts({6})).status().message(),
              HasSubstr("stage 1 would hold layers [6,6)"));
  EXPECT_THAT(SimulatedStepSeconds(Even(6, 2, 4), {}).status().message(),
              HasSubstr("0 cuts for 2 stages"));
}

TEST(Partition, StageCostsLeaveOutWhatTheFrontierSaves) {
  PlannerInput input = Even(4, 2, 1, 1);
  input.worker_speed = {1, 0.5};
  const auto costs = StageCosts(input, Cuts({2}));
  EXPECT_DOUBLE_EQ(costs[0].forward_s, 2);
  EXPECT_DOUBLE_EQ(costs[0].input_grad_s, 0);  // layer 1 is the first trainable one
  EXPECT_DOUBLE_EQ(costs[0].weight_grad_s, 1);
  EXPECT_DOUBLE_EQ(costs[1].input_grad_s, 4);
}

// Not asserted: printed, for the machine at hand.
TEST(Partition, ThousandLayersOnSixtyFourStages) {
  std::mt19937 random(3);
  std::uniform_real_distribution<double> cost(0.5, 1.5);
  for (const std::string schedule : {"gpipe", "1f1b"}) {
    for (const int frontier : {0, 500}) {
      for (const int num_microbatches : {8, 64, 1024}) {
        PlannerInput input;
        for (int i = 0; i < 1000; ++i) input.layers.push_back(Layer(cost(random)));
        input.num_stages = 64;
        input.num_microbatches = num_microbatches;
        input.schedule = schedule;
        input.frontier = LayerIndex(frontier);
        const std::clock_t start = std::clock();
        const auto result = Partition(input);
        const double ms = 1e3 * static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
        ASSERT_TRUE(result.ok()) << result.status();
        std::printf("%s, M=%d, frontier %d: %.0f ms of CPU; even / step = %.3f\n", schedule.c_str(),
                    num_microbatches, frontier, ms, result->even_s / result->step_s);
      }
    }
  }
}

}  // namespace
}  // namespace smartpipe
