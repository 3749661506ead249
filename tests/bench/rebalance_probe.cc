// Tries every cut of a model for real and compares the planner's choice with the best one, for
// `./dev bench --rebalance`.
//
//   rebalance_probe --model resnet18 --workers W --frontiers 0,3,6 --rounds R --steps K
//
// One training run with ranks as threads over Gloo. For each frontier all cuts take turns, R times,
// K steps each; the time of a cut is the median over its rounds. The planner is asked as the
// service asks it: with the layer costs that were measured before the frontier rose.
#include <algorithm>
#include <cstdio>
#include <iostream>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "pipeline/partition.h"
#include "services/base/status_macros.h"
#include "tests/numeric/rank_threads.h"
#include "worker/engine/stopwatch.h"

namespace smartpipe {
namespace {

using CutList = std::vector<int64_t>;

struct ProbeOptions {
  std::string model = "resnet18", schedule = "1f1b";
  int64_t workers = 2, rounds = 3, steps = 4, batch_size = 32, microbatches = 8;
  std::vector<int64_t> frontiers = {0, 3, 6};
};

std::vector<CutList> AllCuts(int64_t num_layers, int64_t num_stages, int64_t first = 1) {
  if (num_stages == 1) return {{}};
  std::vector<CutList> all;
  for (int64_t cut = first; cut < num_layers; ++cut) {
    for (CutList& rest : AllCuts(num_layers, num_stages - 1, cut + 1)) {
      rest.insert(rest.begin(), cut);
      all.push_back(std::move(rest));
    }
  }
  return all;
}

RunConfig MakeConfig(const ProbeOptions& probe) {
  RunConfig config;
  config.train = {.epochs = 1,
                  .batch_size = probe.batch_size,
                  .microbatches = probe.microbatches,
                  .seed = 1,
                  .max_steps = 0};
  config.optim = {.name = "sgd", .lr = 0.01, .momentum = 0.9, .weight_decay = 0};
  config.pipeline.stages = probe.workers;
  config.pipeline.schedule = probe.schedule;
  config.eval.every_epochs = 0;
  config.model.name = probe.model;
  config.data = {.name = "synthetic", .path = "", .limit_train = 65536, .limit_test = 64};
  return config;
}

// The planner's knowledge after interval `last`: the newest measured field of each layer.
std::vector<LayerCost> CostsUpTo(const RankThreadsResult& result, int64_t last,
                                 int64_t num_layers) {
  std::vector<LayerCost> costs(num_layers);
  auto keep = [](double reported, double* known) {
    if (reported >= 0) *known = reported;
  };
  for (int64_t interval = 0; interval <= last; ++interval) {
    for (const auto& reports : result.reports) {
      for (const LayerReportInfo& layer : reports[interval].layers) {
        LayerCost& cost = costs[layer.layer.value()];
        keep(layer.cost.forward_s, &cost.forward_s);
        keep(layer.cost.input_grad_s, &cost.input_grad_s);
        keep(layer.cost.weight_grad_s, &cost.weight_grad_s);
        keep(layer.cost.optimize_s, &cost.optimize_s);
        cost.output_bytes = layer.cost.output_bytes;
      }
    }
  }
  return costs;
}

absl::Status Probe(const ProbeOptions& probe) {
  RankThreadsOptions options;
  options.config = MakeConfig(probe);
  options.gloo = true;
  options.interval_steps = probe.steps;
  SP_ASSIGN_OR_RETURN(const auto dataset, OpenDataset(options.config));
  SP_ASSIGN_OR_RETURN(const auto model,
                      MakeModel(probe.model, dataset->sample_shape(), dataset->num_classes()));
  options.dataset = dataset.get();
  options.model = model.get();
  const int64_t num_layers = model->num_layers();
  const std::vector<CutList> cuts = AllCuts(num_layers, probe.workers);
  // One interval of warm-up, then frontier by frontier, round by round, cut by cut.
  options.plans.push_back({.step = 0, .frontier = 0, .cuts = cuts[cuts.size() / 2]});
  int64_t step = probe.steps;
  for (const int64_t frontier : probe.frontiers) {
    for (int64_t round = 0; round < probe.rounds; ++round) {
      for (const CutList& cut : cuts) {
        options.plans.push_back({.step = step, .frontier = frontier, .cuts = cut});
        step += probe.steps;
      }
    }
  }
  options.num_steps = step;
  SP_ASSIGN_OR_RETURN(const RankThreadsResult result, TrainOnThreads(options));

  int64_t interval = 1;
  for (const int64_t frontier : probe.frontiers) {
    PlannerInput input;
    // Before the first frontier there is only the warm-up: one cut, so each layer on one worker.
    input.layers = CostsUpTo(result, interval - 1, num_layers);
    input.num_stages = static_cast<int32_t>(probe.workers);
    input.num_microbatches = static_cast<int32_t>(probe.microbatches);
    input.schedule = probe.schedule;
    input.frontier = LayerIndex(static_cast<int32_t>(frontier));
    input.num_cores = static_cast<int32_t>(std::thread::hardware_concurrency());
    std::map<CutList, std::vector<double>> times;
    for (int64_t round = 0; round < probe.rounds; ++round) {
      for (const CutList& cut : cuts) {
        times[cut].push_back(result.reports.back()[interval++].step_s);
      }
    }
    SP_ASSIGN_OR_RETURN(const PartitionResult planned, Partition(input));
    CutList chosen, best;
    for (LayerIndex cut : planned.cuts) chosen.push_back(cut.value());
    std::map<CutList, double> medians;
    for (auto& [cut, values] : times) {
      medians[cut] = Median(values);
      if (best.empty() || medians[cut] < medians[best]) best = cut;
    }
    std::cout << nlohmann::json{{"model", probe.model},
                                {"workers", probe.workers},
                                {"schedule", probe.schedule},
                                {"frontier", frontier},
                                {"num_cuts", cuts.size()},
                                {"chosen", chosen},
                                {"chosen_ms", medians[chosen] * 1e3},
                                {"best", best},
                                {"best_ms", medians[best] * 1e3},
                                {"ratio", medians[chosen] / medians[best]},
                                {"predicted_ms", planned.step_s * 1e3}}
              << std::endl;
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace smartpipe

int main(int argc, char** argv) {
  smartpipe::ProbeOptions options;
  CLI::App app{"The planner's cut against all cuts, measured."};
  app.add_option("--model", options.model);
  app.add_option("--schedule", options.schedule);
  app.add_option("--workers", options.workers);
  app.add_option("--rounds", options.rounds);
  app.add_option("--steps", options.steps, "steps of one cut in one round");
  app.add_option("--batch-size", options.batch_size);
  app.add_option("--microbatches", options.microbatches);
  app.add_option("--frontiers", options.frontiers)->delimiter(',');
  CLI11_PARSE(app, argc, argv);
  const absl::Status status = smartpipe::Probe(options);
  if (status.ok()) return 0;
  std::cerr << "rebalance_probe: " << status.message() << "\n";
  return 1;
}
