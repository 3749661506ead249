#include "tests/numeric/rank_threads.h"

#include <cstdlib>
#include <iostream>
#include <optional>
#include <thread>

#include "absl/strings/str_cat.h"
#include "pipeline/partition.h"
#include "pipeline/schedule.h"
#include "services/base/memory_key_value_store.h"
#include "services/base/status_macros.h"
#include "tests/testutil/test_device.h"
#include "worker/comm/device_plugin.h"
#include "worker/engine/compute_settings.h"
#include "worker/engine/trainer.h"

namespace smartpipe {
namespace {

class ScriptedControl : public ControlPlane {
 public:
  explicit ScriptedControl(const RankThreadsOptions& options) : options_(options) {}
  absl::StatusOr<WorkerVerdict> WaitVerdict(IntervalIndex boundary) override {
    WorkerVerdict verdict{.boundary = boundary,
                          .step = Step(boundary.value() * options_.interval_steps)};
    for (size_t i = 0; i < options_.plans.size(); ++i) {
      if (options_.plans[i].step == verdict.step.value())
        verdict.plan = MakePlan(options_, options_.plans[i], i);
    }
    return verdict;
  }
  // Every other boundary's verdict comes late.
  std::optional<WorkerVerdict> PeekVerdict(IntervalIndex boundary) override {
    if (boundary.value() % 2 == 1) return std::nullopt;
    return *WaitVerdict(boundary);
  }
  void Report(IntervalReportInfo report) override { reports.push_back(std::move(report)); }
  void ReportStep(const StepProgressInfo& progress) override { losses.push_back(progress.loss); }
  void ReportEvaluation(const EvaluationInfo& evaluation) override {
    evaluations.push_back(evaluation);
  }

  std::vector<IntervalReportInfo> reports;
  std::vector<double> losses;
  std::vector<EvaluationInfo> evaluations;

 private:
  const RankThreadsOptions& options_;
};

absl::StatusOr<WorkerResult> TrainRank(const RankThreadsOptions& options, Rank rank,
                                       Transport& transport, ScriptedControl& control) {
  const at::Device device = UseTestDevice();
  SetUpComputing(options.config.worker.threads, device);
  std::vector<std::unique_ptr<Layer>> layers;
  for (LayerIndex layer(0); layer.value() < options.model->num_layers(); ++layer) {
    layers.push_back(options.model->MakeLayer(layer, options.config.train.seed));
  }
  const TrainerOptions trainer{
      .context = {.config = &options.config,
                  .model = options.model,
                  .dataset = options.dataset,
                  .transport = &transport,
                  .start_weights = {},
                  .edge_shapes = EdgeShapes(layers, options.dataset->sample_shape()),
                  .device = device},
      .shape = {.steps_per_epoch =
                    options.dataset->size(Split::kTrain) / options.config.train.batch_size,
                .num_steps = options.num_steps,
                .interval_steps = options.interval_steps,
                .num_boundaries = 0},
      .assignment = {.generation = Generation(1),
                     .rank = rank,
                     .members = {},
                     .plan = MakePlan(options, options.plans[0], 0)},
      .weights_path = ""};
  return Train(trainer, control);
}

int32_t NumRanks(const RankThreadsOptions& options, int32_t num_stages) {
  return num_stages / static_cast<int32_t>(options.config.pipeline.stages_per_worker);
}

}  // namespace

at::Device UseTestDevice() {
  SetUpEnvironment();
  const absl::StatusOr<UsedDevice> device = UseDevice(testutil::TestDevice(), 0);
  if (device.ok()) return at::Device(device->name);
  std::cerr << "SMARTPIPE_TEST_DEVICE: " << device.status() << std::endl;
  std::exit(1);
}

Plan MakePlan(const RankThreadsOptions& options, const PlanChange& change, int64_t epoch) {
  Plan plan{.plan_epoch = PlanEpoch(epoch),
            .effective_step = Step(change.step),
            .frontier = LayerIndex(static_cast<int32_t>(change.frontier)),
            .cuts = {},
            .placement = {},
            .schedule = options.config.pipeline.schedule,
            .credits = {}};
  for (int64_t cut : change.cuts) plan.cuts.push_back(LayerIndex(static_cast<int32_t>(cut)));
  const int32_t num_stages = static_cast<int32_t>(plan.cuts.size()) + 1;
  const std::vector<int32_t> ranks = DealStages(num_stages, NumRanks(options, num_stages));
  for (int32_t rank : ranks) plan.placement.push_back({WorkerId(absl::StrCat("w", rank))});
  plan.credits = DefaultCredits(
      {.num_stages = plan.num_stages(),
       .num_microbatches = static_cast<int32_t>(options.config.train.microbatches),
       .num_frozen_stages = NumFrozenStages(plan.cuts, options.model->num_layers(), plan.frontier),
       .stage_to_rank = ranks},
      plan.schedule, options.config.pipeline.run_ahead);
  return plan;
}

absl::StatusOr<RankThreadsResult> TrainOnThreads(const RankThreadsOptions& options) {
  const int32_t size = NumRanks(options, static_cast<int32_t>(options.plans[0].cuts.size()) + 1);
  LoopbackHub own_hub(size);
  LoopbackHub& hub = options.hub != nullptr ? *options.hub : own_hub;
  auto store = std::make_shared<MemoryKeyValueStore>();
  std::vector<std::string> names;
  for (int32_t rank = 0; rank < size; ++rank) names.push_back(absl::StrCat("w", rank));
  std::vector<std::optional<absl::StatusOr<WorkerResult>>> results(size);
  std::vector<std::unique_ptr<ScriptedControl>> controls;
  for (int32_t rank = 0; rank < size; ++rank)
    controls.push_back(std::make_unique<ScriptedControl>(options));
  std::vector<std::thread> threads;
  for (int32_t rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      absl::StatusOr<std::unique_ptr<Transport>> transport =
          options.gloo
              ? MakeGlooTransport(
                    {.rank = Rank(rank), .size = size, .member_names = names, .store = store})
              : hub.MakeTransport(Rank(rank));
      if (!transport.ok()) {
        results[rank] = transport.status();
        return;
      }
      // They share a device: its tensors go through host memory.
      if (testutil::TestDevice() != "cpu") *transport = MakeStagedTransport(*std::move(transport));
      results[rank] = TrainRank(options, Rank(rank), **transport, *controls[rank]);
      if (!results[rank]->ok()) (*transport)->Abort(results[rank]->status());
    });
  }
  for (std::thread& thread : threads) thread.join();
  RankThreadsResult result;
  for (int32_t rank = 0; rank < size; ++rank) {
    if (!results[rank]->ok()) return Annotate(results[rank]->status(), absl::StrCat("rank ", rank));
    result.reports.push_back(std::move(controls[rank]->reports));
  }
  result.weights_sha256 = results[size - 1]->value().weights_sha256;
  result.losses = std::move(controls[size - 1]->losses);
  result.evaluations = std::move(controls[size - 1]->evaluations);
  return result;
}

}  // namespace smartpipe
