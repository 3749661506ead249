#include "cli/plan_command.h"

#include <algorithm>
#include <cmath>
#include <iostream>
#include <utility>

#include "CLI/CLI.hpp"
#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "cli/commands.h"
#include "cli/cost_file.h"
#include "cli/render.h"
#include "nlohmann/json.hpp"
#include "pipeline/schedule.h"
#include "services/base/limits.h"
#include "services/base/nearest_name.h"
#include "services/base/status_macros.h"

namespace smartpipe {
namespace {

using Json = nlohmann::ordered_json;

constexpr char kFooter[] = R"(--costs FILE is JSON, in microseconds of one micro-batch and bytes:
  {"layers": [{"name": "conv1", "forward_us": 400, "input_grad_us": 400,
               "weight_grad_us": 410, "output_bytes": 65536,
               "param_bytes": 9408, "activation_bytes": 131072}, ...],
   "link_bytes_per_s": 1.2e9, "link_latency_us": 20, "worker_speed": [1, 0.5]}
All but layers may be left out: links are free then and workers equal. A layer may
also have optimize_us (of a step; 0) and state_bytes (weights, buffers and what the
optimizer keeps; param_bytes).

The step time is simulated, as the engine trains. Exit codes: 0 a plan, 1 none fits
the memory, 2 mistake in the command line or in the file.)";

absl::Status CheckOption(absl::string_view option, int64_t value, int64_t least, int64_t most,
                         absl::string_view why = "") {
  if (least <= value && value <= most) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(option, " is ", value, ", not in ", least, "..", most, why));
}

absl::Status CheckArguments(const PlanArguments& arguments, const LayerCostFile& file) {
  const int num_layers = static_cast<int>(file.layers.size());
  const std::vector<std::string> schedules = ScheduleNames();
  if (!absl::c_linear_search(schedules, arguments.schedule)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--schedule is \"", arguments.schedule, "\"; did you mean \"",
                     NearestName(arguments.schedule, schedules), "\"?"));
  }
  SP_RETURN_IF_ERROR(CheckOption("--stages", arguments.stages, 1,
                                 std::min(num_layers, limits::kStagesMax),
                                 absl::StrCat(": ", arguments.costs_path, " has ", num_layers,
                                              num_layers == 1 ? " layer" : " layers")));
  SP_RETURN_IF_ERROR(
      CheckOption("--microbatches", arguments.microbatches, 1, limits::kMicrobatchesMax));
  SP_RETURN_IF_ERROR(CheckOption("--frontier", arguments.frontier, 0, num_layers - 1,
                                 ": the last layer always trains"));
  SP_RETURN_IF_ERROR(
      CheckOption("--memory-limit-bytes", arguments.memory_limit_bytes, 0, int64_t{1} << 60));
  if (file.worker_speed.empty() || static_cast<int>(file.worker_speed.size()) == arguments.stages) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat(arguments.costs_path, ": worker_speed has ",
                                                 file.worker_speed.size(),
                                                 " entries, but --stages is ", arguments.stages));
}

// What `smartpipe plan` says of one stage; times are of its worker.
struct StageLoad {
  LayerRange layers;
  int num_frozen = 0;  // of its layers
  StageCost cost;
  double speed = 1;
  double busy_share = 0;
  int64_t memory_bytes = 0;
};

std::vector<StageLoad> StageLoads(const PlanReport& report) {
  const PlannerInput& input = report.input;
  const int num_layers = static_cast<int>(input.layers.size());
  std::vector<StageLoad> loads;
  for (const StageCost& cost : StageCosts(input, report.best.cuts)) {
    const StageIndex stage(static_cast<int32_t>(loads.size()));
    StageLoad load;
    load.layers = StageLayers(report.best.cuts, num_layers, stage);
    load.num_frozen = std::clamp(input.frontier - load.layers.first_layer, 0, load.layers.size());
    load.cost = cost;
    if (!input.worker_speed.empty()) load.speed = input.worker_speed[stage.value()];
    const double busy_s =
        input.num_microbatches * (cost.forward_s + cost.input_grad_s + cost.weight_grad_s) +
        cost.optimize_s;
    load.busy_share = report.best.step_s > 0 ? busy_s / report.best.step_s : 0;
    load.memory_bytes = StageMemoryBytes(input, stage, load.layers);
    loads.push_back(load);
  }
  return loads;
}

double BubbleShare(const std::vector<StageLoad>& loads) {
  double busy = 0;
  for (const StageLoad& load : loads) busy += load.busy_share;
  return std::max(0.0, 1 - busy / static_cast<double>(loads.size()));
}

std::vector<int32_t> Credits(const PlanReport& report) {
  const int num_layers = static_cast<int>(report.input.layers.size());
  const ScheduleShape shape{
      .num_stages = report.input.num_stages,
      .num_microbatches = report.input.num_microbatches,
      .num_frozen_stages = NumFrozenStages(report.best.cuts, num_layers, report.input.frontier)};
  return DefaultCredits(shape, report.input.schedule);
}

// To a millionth of a microsecond: no noise of binary fractions.
double Micros(double seconds) { return std::round(seconds * 1e12) / 1e6; }
double Share(double value) { return std::round(value * 1e9) / 1e9; }

double Ratio(double above, double below) { return below > 0 ? above / below : 1; }

std::vector<int64_t> Numbers(const std::vector<LayerIndex>& cuts) {
  std::vector<int64_t> numbers;
  for (const LayerIndex cut : cuts) numbers.push_back(cut.value());
  return numbers;
}

std::string Time(double seconds) {
  if (seconds < 1e-3) return absl::StrFormat("%.1f us", seconds * 1e6);
  if (seconds < 1) return absl::StrFormat("%.3f ms", seconds * 1e3);
  return absl::StrFormat("%.3f s", seconds);
}

std::string LayerWords(const PlanReport& report, const StageLoad& load) {
  const int first = load.layers.first_layer.value(), last = load.layers.end_layer.value() - 1;
  auto name = [&](int layer) {
    const std::string& full = report.names[layer];
    if (full.size() <= 16) return full;
    size_t end = 13;
    while (end > 0 && (full[end] & 0xc0) == 0x80) --end;  // never inside a character of UTF-8
    return absl::StrCat(full.substr(0, end), "...");
  };
  if (first == last) return absl::StrCat(first, " ", name(first));
  return absl::StrCat(first, "-", last, " ", name(first), "..", name(last));
}

std::string FrozenWord(const StageLoad& load) {
  if (load.num_frozen == 0) return "no";
  return load.num_frozen == load.layers.size() ? "all" : absl::StrCat("first ", load.num_frozen);
}

std::string SpeedupText(const PlanReport& report) {
  if (report.input.frontier.value() == 0) return "";
  if (!report.unfrozen)
    return "With nothing frozen no cuts fit the memory: there is no speed-up to state.";
  const double limit = SpeedupLimit(report.input.layers, report.input.frontier);
  const double base_s = report.unfrozen->step_s;
  const double speedup = Ratio(base_s, report.best.step_s);
  std::string text = absl::StrFormat(
      "Speed-up %.2fx over nothing frozen (step %s with its own best cuts %s). The work that "
      "freezing saves allows %.2fx",
      speedup, Time(base_s), FormatCutList(Numbers(report.unfrozen->cuts)), limit);
  if (speedup > limit * (1 + 1e-9)) {
    absl::StrAppend(&text, "; the rest are bubbles that frozen stages do not have");
  }
  absl::StrAppendFormat(&text, "; no cut can exceed %.2fx.", Ratio(base_s, report.best.bound_s));
  return text;
}

std::string BoundText(const PlanReport& report) {
  const PartitionResult& best = report.best;
  return absl::StrCat(
      "No cut can be faster than ", Time(best.bound_s),
      best.bound_s > best.even_s * (1 + 1e-9)
          ? absl::StrCat(": the heaviest layer alone takes that long (all work spread evenly: ",
                         Time(best.even_s), ").")
          : ": that is all work spread evenly over all workers.");
}

int Fail(const absl::Status& status, int exit_code) {
  std::cout.flush();
  std::cerr << "smartpipe: " << status.message() << std::endl;
  return exit_code;
}

}  // namespace

CLI::App* AddPlanCommand(CLI::App& app, PlanArguments& arguments) {
  CLI::App* command = app.add_subcommand("plan", "best cuts for measured layers");
  command->footer(kFooter);
  auto add = [&](const char* name, auto& value, const char* type, const char* what) {
    return command->add_option(name, value, what)->type_name(type);
  };
  add("--costs", arguments.costs_path, "FILE", "costs of the layers")->required();
  add("--stages", arguments.stages, "S", "stages, one worker each")->required();
  add("--microbatches", arguments.microbatches, "M", "micro-batches of a step")->required();
  add("--schedule", arguments.schedule, "gpipe|1f1b", "order of the work [1f1b]");
  add("--frontier", arguments.frontier, "F", "layers 0..F-1 are frozen [0]");
  add("--memory-limit-bytes", arguments.memory_limit_bytes, "N", "of each worker [none]");
  command->add_flag("--json", arguments.json, "print one JSON object");
  return command;
}

absl::StatusOr<PlanReport> MakePlan(const PlanArguments& arguments) {
  SP_ASSIGN_OR_RETURN(LayerCostFile file, ReadLayerCosts(arguments.costs_path));
  SP_RETURN_IF_ERROR(CheckArguments(arguments, file));
  PlanReport report;
  report.names = std::move(file.names);
  PlannerInput& input = report.input;
  input.layers = std::move(file.layers);
  input.num_stages = arguments.stages;
  input.num_microbatches = arguments.microbatches;
  input.schedule = arguments.schedule;
  input.frontier = LayerIndex(arguments.frontier);
  input.worker_speed = std::move(file.worker_speed);
  input.link_bytes_per_s = file.link_bytes_per_s;
  input.link_latency_s = file.link_latency_s;
  input.memory_limit_bytes = arguments.memory_limit_bytes;
  SP_ASSIGN_OR_RETURN(report.best, Partition(input));
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
  std::cout << (arguments.json ? PlanJson(*report) : PlanText(*report));
  return std::cout.flush() ? kExitFinished : kExitFailed;
}

std::string PlanJson(const PlanReport& report) {
  const PlannerInput& input = report.input;
  const PartitionResult& best = report.best;
  const std::vector<StageLoad> loads = StageLoads(report);
  Json json = {{"schedule", input.schedule},
               {"microbatches", input.num_microbatches},
               {"frontier", input.frontier.value()},
               {"cuts", Numbers(best.cuts)},
               {"step_us", Micros(best.step_s)},
               {"bound_us", Micros(best.bound_s)},
               {"even_step_us", Micros(best.even_s)},
               {"bubble_share", Share(BubbleShare(loads))},
               {"speedup", nullptr},
               {"speedup_limit", Share(SpeedupLimit(input.layers, input.frontier))},
               {"speedup_max", nullptr},
               {"unfrozen", nullptr},
               {"credits", Credits(report)}};
  if (report.unfrozen) {
    const double base_s = report.unfrozen->step_s;
    json["speedup"] = Share(Ratio(base_s, best.step_s));
    json["speedup_max"] = Share(Ratio(base_s, best.bound_s));
    json["unfrozen"] = {{"cuts", Numbers(report.unfrozen->cuts)}, {"step_us", Micros(base_s)}};
  }
  Json stages = Json::array();
  for (const StageLoad& load : loads) {
    stages.push_back({{"stage", stages.size()},
                      {"worker", stages.size()},
                      {"speed", load.speed},
                      {"first_layer", load.layers.first_layer.value()},
                      {"end_layer", load.layers.end_layer.value()},
                      {"frozen", load.num_frozen == load.layers.size()},
                      {"frozen_layers", load.num_frozen},
                      {"forward_us", Micros(load.cost.forward_s)},
                      {"backward_us", Micros(load.cost.input_grad_s + load.cost.weight_grad_s)},
                      {"optimize_us", Micros(load.cost.optimize_s)},
                      {"busy_share", Share(load.busy_share)},
                      {"memory_bytes", load.memory_bytes}});
  }
  json["stages"] = std::move(stages);
  return json.dump() + "\n";
}

std::string PlanText(const PlanReport& report) {
  const PlannerInput& input = report.input;
  const PartitionResult& best = report.best;
  const std::vector<StageLoad> loads = StageLoads(report);
  std::string text = absl::StrCat(
      input.schedule, ", ", input.num_stages, input.num_stages == 1 ? " stage, " : " stages, ",
      input.num_microbatches, input.num_microbatches == 1 ? " micro-batch" : " micro-batches", ", ",
      input.frontier.value(), " of ", input.layers.size(),
      " layers frozen: ", best.cuts.size() == 1 ? "cut " : "cuts ",
      FormatCutList(Numbers(best.cuts)), "\n\n");
  std::string figures = absl::StrFormat("Step %s, workers idle %.1f%% of it. %s", Time(best.step_s),
                                        100 * BubbleShare(loads), BoundText(report));
  absl::StrAppend(&text, Wrap(figures, 79, 0), Wrap(SpeedupText(report), 79, 0), "\n");
  std::vector<std::vector<std::string>> rows = {
      {"worker and layers", "frozen", "forward us", "backward us", "busy", "memory bytes"}};
  for (const StageLoad& load : loads) {
    rows.push_back(
        {absl::StrCat(rows.size() - 1, ": ", LayerWords(report, load)), FrozenWord(load),
         absl::StrFormat("%.1f", load.cost.forward_s * 1e6),
         absl::StrFormat("%.1f", (load.cost.input_grad_s + load.cost.weight_grad_s) * 1e6),
         absl::StrFormat("%.1f%%", 100 * load.busy_share), absl::StrCat(load.memory_bytes)});
  }
  absl::StrAppend(&text, FormatColumns(rows));
  if (const std::vector<int32_t> credits = Credits(report); !credits.empty()) {
    absl::StrAppend(&text, "\nCredits of the edges: ", absl::StrJoin(credits, ", "), "\n");
  }
  return text;
}

}  // namespace smartpipe
