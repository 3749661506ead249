#include "cli/plan_command.h"

#include <algorithm>
#include <iostream>
#include <utility>

#include "CLI/CLI.hpp"
#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "cli/commands.h"
#include "cli/complaint.h"
#include "cli/cost_file.h"
#include "cli/option_check.h"
#include "cli/schedule_options.h"
#include "cli/simulate_command.h"
#include "services/base/limits.h"
#include "services/base/status_macros.h"

namespace smartpipe {
namespace {

constexpr char kFooter[] = R"(--costs FILE is JSON, in microseconds of one micro-batch and bytes:
  {"layers": [{"name": "conv1", "forward_us": 400, "input_grad_us": 400,
               "weight_grad_us": 410, "output_bytes": 65536,
               "param_bytes": 9408, "activation_bytes": 131072}, ...],
   "link_bytes_per_s": 1.2e9, "link_latency_us": 20, "worker_speed": [1, 0.5]}
All but layers may be left out: links are free then and workers equal; worker_speed
has one number for each worker. A layer may also have optimize_us (of a step; 0) and
state_bytes (weights, buffers and what the optimizer keeps; param_bytes).

The step time is simulated, as the engine trains. Exit codes: 0 a plan, 1 none fits
the memory, 2 mistake in the command line or in the file.)";

absl::Status CheckArguments(const PlanArguments& arguments, const LayerCostFile& file) {
  const int num_layers = static_cast<int>(file.layers.size());
  SP_RETURN_IF_ERROR(
      CheckScheduleOptions(arguments.schedule, arguments.stages, arguments.stages_per_worker,
                           std::min(num_layers, limits::kStagesMax),
                           absl::StrCat(": ", arguments.costs_path, " has ", num_layers,
                                        num_layers == 1 ? " layer" : " layers")));
  SP_RETURN_IF_ERROR(CheckOption("--cores", arguments.cores, 0, limits::kStagesMax));
  SP_RETURN_IF_ERROR(
      CheckOption("--microbatches", arguments.microbatches, 1, limits::kMicrobatchesMax));
  SP_RETURN_IF_ERROR(CheckOption("--frontier", arguments.frontier, 0, num_layers - 1,
                                 ": the last layer always trains"));
  SP_RETURN_IF_ERROR(
      CheckOption("--memory-limit-bytes", arguments.memory_limit_bytes, 0, int64_t{1} << 60));
  if (file.worker_speed.empty() || static_cast<int>(file.worker_speed.size()) ==
                                       arguments.stages / arguments.stages_per_worker) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat(
      arguments.costs_path, ": worker_speed has ", file.worker_speed.size(),
      " entries, but there are ", arguments.stages / arguments.stages_per_worker, " workers"));
}

}  // namespace

CLI::App* AddPlanCommand(CLI::App& app, PlanArguments& arguments) {
  CLI::App* command = app.add_subcommand("plan", "best cuts for measured layers");
  command->footer(kFooter);
  auto add = [&](const char* name, auto& value, const char* type, const char* what) {
    return command->add_option(name, value, what)->type_name(type);
  };
  add("--costs", arguments.costs_path, "FILE", "costs of the layers")->required();
  add("--stages", arguments.stages, "S", "stages, all workers' together")->required();
  add("--stages-per-worker", arguments.stages_per_worker, "V",
      "stages of each worker, dealt out in turn [1]");
  add("--microbatches", arguments.microbatches, "M", "micro-batches of a step")->required();
  add("--schedule", arguments.schedule, ScheduleChoices().c_str(), "order of the work [1f1b]");
  add("--frontier", arguments.frontier, "F", "layers 0..F-1 are frozen [0]");
  add("--cores", arguments.cores, "N", "cores that all workers share [one each]");
  add("--memory-limit-bytes", arguments.memory_limit_bytes, "N", "of each worker [none]");
  add("--cuts", arguments.cuts, "C,C,..", "judge these first layers of stages 1..S-1")
      ->delimiter(',');
  add("--svg", arguments.svg_path, "FILE", "draw two steps");
  command->add_flag("--json", arguments.json, "print one JSON object");
  return command;
}

absl::StatusOr<PlanReport> MakePlan(const PlanArguments& arguments) {
  SP_ASSIGN_OR_RETURN(LayerCostFile file, ReadLayerCosts(arguments.costs_path));
  // A run writes a 1 for each of its workers; that should not bind --stages to their number.
  if (absl::c_all_of(file.worker_speed, [](double speed) { return speed == 1; })) {
    file.worker_speed.clear();
  }
  SP_RETURN_IF_ERROR(CheckArguments(arguments, file));
  PlanReport report;
  report.names = std::move(file.names);
  PlannerInput& input = report.input;
  input.layers = std::move(file.layers);
  input.num_stages = arguments.stages;
  input.stages_per_worker = arguments.stages_per_worker;
  input.num_cores = arguments.cores;
  input.num_microbatches = arguments.microbatches;
  input.schedule = arguments.schedule;
  input.frontier = LayerIndex(arguments.frontier);
  input.worker_speed = std::move(file.worker_speed);
  input.link_bytes_per_s = file.link_bytes_per_s;
  input.link_latency_s = file.link_latency_s;
  input.memory_limit_bytes = arguments.memory_limit_bytes;
  SP_ASSIGN_OR_RETURN(report.best, Partition(input));
  report.plan = report.best;
  if (!arguments.cuts.empty()) {
    report.plan.cuts.clear();
    for (const int cut : arguments.cuts) report.plan.cuts.emplace_back(cut);
    const absl::StatusOr<double> step_s = SimulatedStepSeconds(input, report.plan.cuts);
    if (!step_s.ok()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "--cuts ", absl::StrJoin(arguments.cuts, ","), ": ", step_s.status().message(),
          "; give the first layers of stages 1..S-1, ascending"));
    }
    report.plan.step_s = *step_s;
  }
  if (arguments.frontier == 0) {
    report.unfrozen = report.best;
    return report;
  }
  PlannerInput unfrozen = input;
  unfrozen.frontier = LayerIndex(0);
  absl::StatusOr<PartitionResult> result = Partition(unfrozen);
  if (result.ok()) {
    report.unfrozen = *std::move(result);
  } else if (!absl::IsResourceExhausted(result.status())) {
    return result.status();
  }
  return report;
}

int PlanCommand(const PlanArguments& arguments) {
  const absl::StatusOr<PlanReport> report = MakePlan(arguments);
  if (!report.ok()) {
    return Fail(report.status(),
                absl::IsResourceExhausted(report.status()) ? kExitFailed : kExitUsage);
  }
  if (!arguments.svg_path.empty()) {
    const int written = WriteSvg(PlanSvg(*report), arguments.svg_path);
    if (written != kExitFinished) return written;
  }
  std::cout << (arguments.json ? PlanJson(*report) : PlanText(*report));
  return kExitFinished;
}

}  // namespace smartpipe
