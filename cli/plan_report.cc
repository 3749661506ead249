// What `smartpipe plan` shows: text, JSON, picture.
#include <algorithm>
#include <cmath>
#include <vector>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "cli/picture.h"
#include "cli/plan_command.h"
#include "cli/render.h"
#include "nlohmann/json.hpp"
#include "pipeline/schedule.h"
#include "services/base/status_macros.h"

namespace smartpipe {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kDrawnSteps = 2, kStepsBefore = 16;
constexpr double kRoundingMs = 1e-6;

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
  for (const StageCost& cost : StageCosts(input, report.plan.cuts)) {
    const StageIndex stage(static_cast<int32_t>(loads.size()));
    StageLoad load;
    load.layers = StageLayers(report.plan.cuts, num_layers, stage);
    load.num_frozen = std::clamp(input.frontier - load.layers.first_layer, 0, load.layers.size());
    load.cost = cost;
    load.speed = input.stage_speed(stage.value());
    const double busy_s =
        input.num_microbatches * (cost.forward_s + cost.input_grad_s + cost.weight_grad_s) +
        cost.optimize_s;
    load.busy_share = report.plan.step_s > 0 ? busy_s / report.plan.step_s : 0;
    load.memory_bytes = StageMemoryBytes(input, stage, load.layers);
    loads.push_back(load);
  }
  return loads;
}

// What idles, and over what work is spread.
absl::string_view Runners(const PlannerInput& input) {
  return input.shares_cores() ? "cores" : "workers";
}

// Of the time of all runners.
double BubbleShare(const PlanReport& report, const std::vector<StageLoad>& loads) {
  const PlannerInput& input = report.input;
  double busy = 0;
  for (const StageLoad& load : loads) busy += load.busy_share;
  return std::max(0.0, 1 - busy / (input.shares_cores() ? input.num_cores : input.num_workers()));
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
  const double speedup = Ratio(base_s, report.plan.step_s);
  std::string text = absl::StrFormat(
      "Speed-up %.2fx over nothing frozen (step %s with its own best cuts %s). The work that "
      "freezing saves allows %.2fx",
      speedup, Time(base_s), FormatCutList(Numbers(report.unfrozen->cuts)), limit);
  if (speedup > limit * (1 + 1e-9)) {
    absl::StrAppend(&text, "; the rest are bubbles that frozen stages do not have");
  }
  absl::StrAppendFormat(&text, "; no cut can exceed %.2fx.", Ratio(base_s, report.best.floor_s));
  return text;
}

std::string BestText(const PlanReport& report) {
  if (report.plan.cuts == report.best.cuts) return "";
  return absl::StrCat("The best cuts found are ", FormatCutList(Numbers(report.best.cuts)),
                      ": step ", Time(report.best.step_s), ".");
}

std::string FloorText(const PlanReport& report) {
  const PartitionResult& best = report.best;
  return absl::StrCat(
      "No cut can be faster than ", Time(best.floor_s),
      best.floor_s > best.even_s * (1 + 1e-9)
          ? absl::StrCat(": the heaviest layer alone takes that long (all work spread evenly: ",
                         Time(best.even_s), ").")
          : absl::StrCat(": that is all work spread evenly over all ", Runners(report.input), "."));
}

std::string Headline(const PlanReport& report) {
  const PlannerInput& input = report.input;
  const std::vector<int64_t> cuts = Numbers(report.plan.cuts);
  std::string text = absl::StrCat(
      input.schedule, ", ", input.num_stages, input.num_stages == 1 ? " stage, " : " stages, ",
      input.num_microbatches, input.num_microbatches == 1 ? " micro-batch" : " micro-batches", ", ",
      input.frontier.value(), " of ", input.layers.size(), " layers frozen");
  if (input.stages_per_worker > 1)
    absl::StrAppend(&text, ", ", input.stages_per_worker, " stages on each worker");
  if (input.shares_cores())
    absl::StrAppend(&text, ", ", input.num_cores, input.num_cores == 1 ? " core" : " cores");
  if (cuts.empty()) return text;
  return absl::StrCat(text, cuts.size() == 1 ? ": cut " : ": cuts ", FormatCutList(cuts));
}

ScheduleShape ShapeOf(const PlanReport& report) {
  const int num_layers = static_cast<int>(report.input.layers.size());
  return report.input.shape(NumFrozenStages(report.plan.cuts, num_layers, report.input.frontier));
}

// When the trainable stages have ended `step`.
double StepEnd(const SimulateResult& result, int num_frozen_stages, int step) {
  double end_s = 0;
  for (const auto& rank : result.trace) {
    for (const TimedInstruction& timed : rank) {
      const bool trains = timed.instruction.stage.value() >= num_frozen_stages;
      if (trains && timed.step == step) end_s = std::max(end_s, timed.end_s);
    }
  }
  return end_s;
}

// What a worker does after `begin_s`, when step `first_step` begins; the marks are the ends of
// steps.
void AddBoxes(const std::vector<TimedInstruction>& trace, const ScheduleShape& shape, int worker,
              int first_step, double begin_s, Picture* picture) {
  for (const TimedInstruction& timed : trace) {
    const Op op = timed.instruction.op;
    const double start = std::max(picture->begin, (timed.start_s - begin_s) * 1e3);
    const double end = std::min(picture->end, (timed.end_s - begin_s) * 1e3);
    if (!IsCompute(op) || end <= start) continue;
    PictureBox box = {worker, start, end};
    if (op != Op::kForward)
      box.kind = op == Op::kOptimize ? BoxKind::kOptimize : BoxKind::kBackward;
    box.frozen = timed.instruction.stage.value() < shape.num_frozen_stages;
    if (op == Op::kForward) {
      const auto num_ended = absl::c_count_if(picture->marks, [start](const PictureMark& mark) {
        return mark.at <= start + kRoundingMs;
      });
      box.steps_ahead = std::max(0, timed.step - first_step - static_cast<int>(num_ended));
    }
    if (op != Op::kOptimize) {
      box.label = shape.num_stages == shape.num_ranks()
                      ? absl::StrCat(timed.instruction.microbatch.value())
                      : Format(timed.instruction);
    }
    box.tip = absl::StrFormat("%s: %.3f ms", Format(timed.instruction),
                              (timed.end_s - timed.start_s) * 1e3);
    picture->boxes.push_back(box);
  }
}

// "layers 0-2, all frozen; 6-8" of the stages of a worker.
std::string LayersNote(const std::vector<StageLoad>& loads, const ScheduleShape& shape,
                       int worker) {
  std::vector<std::string> ranges;
  for (int s = 0; s < shape.num_stages; ++s) {
    if (shape.rank_of(s) != worker) continue;
    const LayerRange& layers = loads[s].layers;
    const std::string frozen = FrozenWord(loads[s]);
    ranges.push_back(absl::StrCat(layers.first_layer.value(), "-", layers.end_layer.value() - 1,
                                  frozen == "no" ? "" : absl::StrCat(", ", frozen, " frozen")));
  }
  return absl::StrCat("layers ", absl::StrJoin(ranges, "; "));
}

}  // namespace

std::string PlanJson(const PlanReport& report) {
  const PlannerInput& input = report.input;
  const PartitionResult& plan = report.plan;
  const std::vector<StageLoad> loads = StageLoads(report);
  Json json = {
      {"schedule", input.schedule},
      {"microbatches", input.num_microbatches},
      {"frontier", input.frontier.value()},
      {"cuts", Numbers(plan.cuts)},
      {"step_us", Micros(plan.step_s)},
      {"floor_us", Micros(plan.floor_s)},
      {"even_step_us", Micros(plan.even_s)},
      {"bubble_share", Share(BubbleShare(report, loads))},
      {"speedup", nullptr},
      {"speedup_limit", Share(SpeedupLimit(input.layers, input.frontier))},
      {"speedup_max", nullptr},
      {"unfrozen", nullptr},
      {"best", {{"cuts", Numbers(report.best.cuts)}, {"step_us", Micros(report.best.step_s)}}},
      {"credits", DefaultCredits(ShapeOf(report), input.schedule)}};
  if (report.unfrozen) {
    const double base_s = report.unfrozen->step_s;
    json["speedup"] = Share(Ratio(base_s, plan.step_s));
    json["speedup_max"] = Share(Ratio(base_s, plan.floor_s));
    json["unfrozen"] = {{"cuts", Numbers(report.unfrozen->cuts)}, {"step_us", Micros(base_s)}};
  }
  Json stages = Json::array();
  for (const StageLoad& load : loads) {
    stages.push_back({{"stage", stages.size()},
                      {"worker", stages.size() % input.num_workers()},
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
  const PartitionResult& plan = report.plan;
  const std::vector<StageLoad> loads = StageLoads(report);
  std::string text = absl::StrCat(Headline(report), "\n\n");
  std::string figures =
      absl::StrFormat("Step %s, %s idle %.1f%% of it. %s", Time(plan.step_s), Runners(input),
                      100 * BubbleShare(report, loads), FloorText(report));
  absl::StrAppend(&text, Wrap(figures, 79, 0), Wrap(BestText(report), 79, 0),
                  Wrap(SpeedupText(report), 79, 0), "\n");
  std::vector<std::vector<std::string>> rows = {
      {input.stages_per_worker == 1 ? "worker and layers" : "stage and layers", "frozen",
       "forward us", "backward us", "busy", "memory bytes"}};
  for (const StageLoad& load : loads) {
    rows.push_back(
        {absl::StrCat(rows.size() - 1, ": ", LayerWords(report, load)), FrozenWord(load),
         absl::StrFormat("%.1f", load.cost.forward_s * 1e6),
         absl::StrFormat("%.1f", (load.cost.input_grad_s + load.cost.weight_grad_s) * 1e6),
         absl::StrFormat("%.1f%%", 100 * load.busy_share), absl::StrCat(load.memory_bytes)});
  }
  absl::StrAppend(&text, FormatColumns(rows));
  if (const std::vector<int32_t> credits = DefaultCredits(ShapeOf(report), input.schedule);
      !credits.empty()) {
    absl::StrAppend(&text, "\nCredits of the edges: ", absl::StrJoin(credits, ", "), "\n");
  }
  return text;
}

absl::StatusOr<std::string> PlanSvg(const PlanReport& report) {
  const PlannerInput& input = report.input;
  if (input.shares_cores()) {
    return absl::InvalidArgumentError(
        "--svg: workers that share --cores take turns, which is not drawn; leave --cores out");
  }
  const ScheduleShape shape = ShapeOf(report);
  const int num_frozen = shape.num_frozen_stages;
  if (const int64_t boxes = int64_t{2} * kDrawnSteps * shape.num_stages * shape.num_microbatches;
      boxes > kPictureBoxesMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("--svg: the picture would have up to ", boxes, " boxes, at most ",
                     kPictureBoxesMax, " can be read; use fewer micro-batches or stages"));
  }
  SP_ASSIGN_OR_RETURN(const std::vector<Program> programs, MakePrograms(shape, input.schedule));
  // Each frozen stage may be a step ahead of the next; it takes some steps until it is.
  const int first_step = kStepsBefore + num_frozen;
  SP_ASSIGN_OR_RETURN(const SimulateResult result,
                      Simulate(shape, programs, StageCosts(input, report.plan.cuts),
                               LinkCosts(input, report.plan.cuts),
                               {.num_steps = first_step + kDrawnSteps + 1 + num_frozen,
                                .credits = DefaultCredits(shape, input.schedule)}));
  const double begin_s = StepEnd(result, num_frozen, first_step - 1);
  Picture picture;
  picture.unit = "ms";
  picture.title = Headline(report);
  const std::vector<StageLoad> loads = StageLoads(report);
  picture.subtitle = absl::StrFormat(
      "step %s, workers idle %.1f%% of it; no cut can be faster than %s", Time(report.plan.step_s),
      100 * BubbleShare(report, loads), Time(report.plan.floor_s));
  picture.end = (StepEnd(result, num_frozen, first_step + kDrawnSteps - 1) - begin_s) * 1e3;
  if (!(picture.end > 0)) {
    return absl::InvalidArgumentError("--svg: all times are 0: there is nothing to draw");
  }
  for (int i = 0; i < kDrawnSteps; ++i) {
    picture.marks.push_back(
        {(StepEnd(result, num_frozen, first_step + i) - begin_s) * 1e3, "end of a step"});
  }
  for (int w = 0; w < shape.num_ranks(); ++w) {
    picture.rows.push_back({absl::StrCat(input.stages_per_worker == 1 ? "stage " : "worker ", w),
                            LayersNote(loads, shape, w), 0, picture.end});
    AddBoxes(result.trace[w], shape, w, first_step, begin_s, &picture);
  }
  return ToSvg(picture);
}

}  // namespace smartpipe
