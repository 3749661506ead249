#include "cli/simulate_command.h"

#include <iostream>
#include <utility>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/strings/str_cat.h"
#include "cli/commands.h"
#include "cli/complaint.h"
#include "cli/cost_file.h"
#include "cli/files.h"
#include "cli/option_check.h"
#include "cli/preflight.h"
#include "cli/schedule_options.h"
#include "pipeline/paper_rules.h"
#include "pipeline/plan.h"
#include "pipeline/schedule.h"
#include "services/base/limits.h"
#include "services/base/status_macros.h"

namespace smartpipe {
namespace {

constexpr char kFooter[] =
    R"(--flush none plays the SmartPipe paper's rules: they give its figures, but 1F1B
starts a batch before the optimizer step of the batch before it. --flush step is
what `smartpipe train` does: one step after the other, of --batch samples each.
Several stages on a worker need it; 2F0 is then stage 2's forward of sample 0.

--costs FILE is JSON, in microseconds of one micro-batch (optimize_us: of a step;
it and links may be left out; a frozen stage only pays forward_us):
  {"stages": [{"forward_us": 400, "input_grad_us": 400, "weight_grad_us": 410,
               "optimize_us": 30}, ...],
   "links": [{"latency_us": 20, "forward_us": 55, "backward_us": 55}, ...]}

Example, a figure of the paper: time 16, bubbles 10
  smartpipe simulate --schedule 1f1b --stages 4 --samples 6 --batch 3 --frozen-stages 2)";

absl::Status CheckArguments(const SimulateArguments& arguments) {
  SP_RETURN_IF_ERROR(CheckScheduleOptions(arguments.schedule, arguments.stages,
                                          arguments.stages_per_worker, limits::kStagesMax));
  SP_RETURN_IF_ERROR(CheckWord("--flush", arguments.flush, {"none", "step"}));
  if (arguments.flush == "none" && arguments.stages_per_worker > 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--flush none plays the paper's rules, which have one stage on each worker, but "
        "--stages-per-worker is ",
        arguments.stages_per_worker, "; use --flush step"));
  }
  SP_RETURN_IF_ERROR(CheckOption("--samples", arguments.samples, 1, limits::kMicrobatchesMax));
  SP_RETURN_IF_ERROR(CheckOption("--batch", arguments.batch, 1, limits::kMicrobatchesMax));
  SP_RETURN_IF_ERROR(CheckOption("--frozen-stages", arguments.frozen_stages, 0,
                                 arguments.stages - 1, ": the last stage always trains"));
  const int over = arguments.samples % arguments.batch;
  if (arguments.flush == "none" || over == 0) return absl::OkStatus();
  const int more = arguments.samples - over + arguments.batch;
  return absl::InvalidArgumentError(absl::StrCat(
      "--samples ", arguments.samples, " is not a multiple of --batch ", arguments.batch,
      ", and with --flush step every step has exactly a batch: use --samples ", more,
      arguments.samples > over ? absl::StrCat(" or ", arguments.samples - over) : "",
      ", or --flush none"));
}

absl::StatusOr<SimulateResult> PlaySteps(const SimulateArguments& arguments,
                                         const StageCostFile& costs) {
  const ScheduleShape shape{.num_stages = arguments.stages,
                            .num_microbatches = arguments.batch,
                            .num_frozen_stages = arguments.frozen_stages,
                            .stage_to_rank = DealStages(arguments.stages, arguments.num_workers())};
  SP_ASSIGN_OR_RETURN(const std::vector<Program> programs, MakePrograms(shape, arguments.schedule));
  return Simulate(shape, programs, costs.stages, costs.links,
                  {.num_steps = arguments.samples / arguments.batch,
                   .credits = DefaultCredits(shape, arguments.schedule)});
}

}  // namespace

CLI::App* AddSimulateCommand(CLI::App& app, SimulateArguments& arguments) {
  CLI::App* command = app.add_subcommand("simulate", "time and bubbles of a pipeline");
  command->footer(kFooter);
  auto add = [&](const char* name, auto& value, const char* type, const char* what) {
    return command->add_option(name, value, what)->type_name(type);
  };
  add("--schedule", arguments.schedule, ScheduleChoices().c_str(), "order of the work")->required();
  add("--stages", arguments.stages, "S", "stages, all workers' together")->required();
  add("--stages-per-worker", arguments.stages_per_worker, "V",
      "stages of each worker, dealt out in turn [1]");
  add("--samples", arguments.samples, "D", "samples in all; one is a micro-batch")->required();
  add("--batch", arguments.batch, "b", "samples of one optimizer step")->required();
  add("--frozen-stages", arguments.frozen_stages, "k", "first stages that only forward [0]");
  add("--flush", arguments.flush, "none|step", "the paper's rules, or the engine's [none]");
  add("--costs", arguments.costs_path, "FILE", "times of each stage [1 slot forward, 1 backward]");
  add("--svg", arguments.svg_path, "FILE", "draw it");
  command->add_flag("--json", arguments.json, "print one JSON object");
  return command;
}

absl::StatusOr<PlayedPipeline> PlayPipeline(const SimulateArguments& arguments) {
  SP_RETURN_IF_ERROR(CheckArguments(arguments));
  PlayedPipeline played = {{}, 1, "slots"};
  StageCostFile costs;
  costs.stages.assign(arguments.stages,
                      {.forward_s = 1, .input_grad_s = 0.5, .weight_grad_s = 0.5, .optimize_s = 0});
  if (!arguments.costs_path.empty()) {
    played.scale = 1e6;
    played.unit = "us";
    SP_ASSIGN_OR_RETURN(costs, ReadStageCosts(arguments.costs_path));
    if (static_cast<int>(costs.stages.size()) != arguments.stages) {
      return absl::InvalidArgumentError(
          absl::StrCat(arguments.costs_path, " describes ", costs.stages.size(),
                       " stages, but --stages is ", arguments.stages));
    }
  }
  if (arguments.flush == "step") {
    SP_ASSIGN_OR_RETURN(played.result, PlaySteps(arguments, costs));
    return played;
  }
  const PaperShape shape = {arguments.schedule, arguments.stages, arguments.samples,
                            arguments.batch, arguments.frozen_stages};
  SP_ASSIGN_OR_RETURN(played.result, PlayPaperRules(shape, costs.stages, costs.links));
  return played;
}

int WriteSvg(const absl::StatusOr<std::string>& svg, const std::string& path) {
  if (!svg.ok()) return Fail(svg.status(), kExitUsage);
  if (const absl::Status writable = CheckWritable(path); !writable.ok())
    return Fail(absl::InvalidArgumentError(absl::StrCat("--svg: ", writable.message())),
                kExitUsage);
  const absl::Status written = WriteFileAtomically(path, *svg);
  if (written.ok()) return kExitFinished;
  return Fail(written, kExitFailed);
}

int SimulateCommand(const SimulateArguments& arguments) {
  const absl::StatusOr<PlayedPipeline> played = PlayPipeline(arguments);
  if (!played.ok()) return Fail(played.status(), kExitUsage);
  if (!arguments.svg_path.empty()) {
    const int written = WriteSvg(SimulateSvg(arguments, *played), arguments.svg_path);
    if (written != kExitFinished) return written;
  }
  std::cout << (arguments.json ? SimulateJson(arguments, *played)
                               : SimulateText(arguments, *played));
  if (!arguments.json && !arguments.svg_path.empty())
    std::cout << "\nPicture: " << arguments.svg_path << "\n";
  return kExitFinished;
}

}  // namespace smartpipe
