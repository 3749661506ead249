// Measures what this machine can do at most with the block network, for `./dev bench`.
//
//   bench_probe train --threads T --frozen F --steps N [--costs FILE] [--device cuda]
//       Trains on one stage (no pipeline) with the first F layers frozen and prints samples/s of
//       each step, one JSON line.
//   bench_probe bound --costs FILE --frozen F --stages S --schedule NAME --cores C
//       Prints the best step time that the schedule admits with these layer costs, as samples/s.
#include <cstdio>
#include <fstream>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "pipeline/partition.h"
#include "services/base/status_macros.h"
#include "worker/comm/device_plugin.h"
#include "worker/comm/transport.h"
#include "worker/engine/compute_settings.h"
#include "worker/engine/interpreter.h"
#include "worker/engine/stopwatch.h"

namespace smartpipe {
namespace {

constexpr int64_t kBatchSize = 128;
constexpr int64_t kMicrobatches = 8;

RunConfig BenchConfig() {
  RunConfig config;
  config.train = {.epochs = 1,
                  .batch_size = kBatchSize,
                  .microbatches = kMicrobatches,
                  .seed = 1,
                  .max_steps = 0};
  config.optim = {.name = "sgd", .lr = 0.01, .momentum = 0.9, .weight_decay = 0};
  config.model.name = "blocknet";
  config.data = {.name = "synthetic", .path = "", .limit_train = 1024, .limit_test = 128};
  return config;
}

nlohmann::json ToJson(const LayerCost& cost) {
  return {{"forward_s", cost.forward_s},
          {"input_grad_s", cost.input_grad_s},
          {"weight_grad_s", cost.weight_grad_s},
          {"optimize_s", cost.optimize_s}};
}

absl::Status RunTraining(int threads, int frozen, int steps, const std::string& costs_path,
                         const std::string& device_kind, int device_index) {
  SP_ASSIGN_OR_RETURN(const UsedDevice used, UseDevice(device_kind, device_index));
  const at::Device device(used.name);
  SetUpComputing(threads, device);
  const RunConfig config = BenchConfig();
  SP_ASSIGN_OR_RETURN(const auto dataset, OpenDataset(config));
  SP_ASSIGN_OR_RETURN(const auto model,
                      MakeModel("blocknet", dataset->sample_shape(), dataset->num_classes()));
  std::vector<std::unique_ptr<Layer>> layers;
  for (LayerIndex layer(0); layer.value() < model->num_layers(); ++layer)
    layers.push_back(model->MakeLayer(layer, 1));
  LoopbackHub hub(1);
  const auto transport = hub.MakeTransport(Rank(0));
  const EngineContext context{.config = &config,
                              .model = model.get(),
                              .dataset = dataset.get(),
                              .transport = transport.get(),
                              .start_weights = {},
                              .edge_shapes = EdgeShapes(layers, dataset->sample_shape()),
                              .device = device};
  const Plan plan{.plan_epoch = PlanEpoch(0),
                  .effective_step = Step(0),
                  .frontier = LayerIndex(frozen),
                  .cuts = {},
                  .placement = {{WorkerId("w0")}},
                  .schedule = "1f1b",
                  .credits = {}};
  SP_ASSIGN_OR_RETURN(const auto interpreter, Interpreter::Create(context, plan));
  nlohmann::json samples_per_s = nlohmann::json::array();
  for (int step = -2; step < steps; ++step) {  // two steps of warm-up
    Stopwatch watch;
    SP_RETURN_IF_ERROR(interpreter->RunStep(Step(step + 2), /*probe=*/step == 0).status());
    if (step >= 0) samples_per_s.push_back(kBatchSize / watch.seconds());
  }
  std::cout << nlohmann::json{{"samples_per_s", samples_per_s}} << std::endl;
  if (costs_path.empty()) return absl::OkStatus();
  nlohmann::json costs = nlohmann::json::array();
  for (const auto& [index, runner] : interpreter->layers())
    costs.push_back(ToJson(runner->TakeCost()));
  std::ofstream(costs_path) << costs;
  return absl::OkStatus();
}

absl::Status PrintBound(const std::string& costs_path, int frozen, int stages,
                        const std::string& schedule, int cores) {
  PlannerInput input;
  std::ifstream file(costs_path);
  for (const nlohmann::json& row : nlohmann::json::parse(file)) {
    auto seconds = [&](const char* key) { return std::max(0.0, row.at(key).get<double>()); };
    input.layers.push_back({.forward_s = seconds("forward_s"),
                            .input_grad_s = seconds("input_grad_s"),
                            .weight_grad_s = seconds("weight_grad_s"),
                            .optimize_s = seconds("optimize_s")});
  }
  input.num_stages = stages;
  input.num_microbatches = kMicrobatches;
  input.schedule = schedule;
  input.frontier = LayerIndex(frozen);
  input.num_cores = cores;
  SP_ASSIGN_OR_RETURN(const PartitionResult best, Partition(input));
  std::vector<int> cuts;
  for (LayerIndex cut : best.cuts) cuts.push_back(cut.value());
  std::cout << nlohmann::json{{"samples_per_s", kBatchSize / best.step_s}, {"cuts", cuts}}
            << std::endl;
  return absl::OkStatus();
}

}  // namespace
}  // namespace smartpipe

int main(int argc, char** argv) {
  smartpipe::SetUpEnvironment();
  CLI::App app{"Ceiling and bound of the block network on this machine."};
  app.require_subcommand(1);
  int threads = 1, frozen = 0, steps = 5, stages = 2, cores = 2;
  std::string costs, schedule = "1f1b", device = "cpu";
  int device_index = 0;
  CLI::App* train = app.add_subcommand("train", "one stage, no pipeline");
  train->add_option("--threads", threads);
  train->add_option("--steps", steps);
  train->add_option("--device", device, "cpu or cuda");
  train->add_option("--device-index", device_index, "which GPU, modulo their number");
  CLI::App* bound = app.add_subcommand("bound", "best simulated step");
  bound->add_option("--stages", stages);
  bound->add_option("--schedule", schedule);
  bound->add_option("--cores", cores);
  for (CLI::App* command : {train, bound}) {
    command->add_option("--frozen", frozen, "frozen layers");
    command->add_option("--costs", costs, "file of layer costs");
  }
  CLI11_PARSE(app, argc, argv);
  const absl::Status status =
      train->parsed() ? smartpipe::RunTraining(threads, frozen, steps, costs, device, device_index)
                      : smartpipe::PrintBound(costs, frozen, stages, schedule, cores);
  if (status.ok()) return 0;
  std::cerr << "bench_probe: " << status.message() << "\n";
  return 1;
}
