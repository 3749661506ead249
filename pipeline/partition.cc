#include "pipeline/partition.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "pipeline/cut_model.h"
#include "pipeline/cut_search.h"
#include "pipeline/play.h"
#include "services/base/limits.h"
#include "services/base/status_macros.h"

namespace smartpipe {
namespace {

// The first fills the pipeline; what follows repeats itself.
constexpr int kSimulatedSteps = 4;
// Making a program costs as much as playing it so often.
constexpr int kMakingCost = 12;
// On shared cores how far frozen ranks are ahead takes longer to settle.
constexpr int kSharedSteps = 8;

absl::Status CheckRange(absl::string_view field, int64_t value, int64_t least, int64_t most) {
  if (least <= value && value <= most) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(field, " is ", value, ", not in ", least, "..", most));
}

absl::Status CheckAmount(absl::string_view field, double value) {
  if (std::isfinite(value) && value >= 0) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(field, " is ", value, "; it must be finite and not negative"));
}

absl::Status CheckLayer(const LayerCost& layer, size_t index) {
  const std::string at = absl::StrCat("layers[", index, "].");
  SP_RETURN_IF_ERROR(CheckAmount(at + "forward_s", layer.forward_s));
  SP_RETURN_IF_ERROR(CheckAmount(at + "input_grad_s", layer.input_grad_s));
  SP_RETURN_IF_ERROR(CheckAmount(at + "weight_grad_s", layer.weight_grad_s));
  SP_RETURN_IF_ERROR(CheckAmount(at + "optimize_s", layer.optimize_s));
  SP_RETURN_IF_ERROR(CheckAmount(at + "output_bytes", layer.output_bytes));
  SP_RETURN_IF_ERROR(CheckAmount(at + "param_bytes", layer.param_bytes));
  SP_RETURN_IF_ERROR(CheckAmount(at + "state_bytes", layer.state_bytes));
  return CheckAmount(at + "activation_bytes", layer.activation_bytes);
}

// Sums of bytes, with all micro-batches in flight, must stay whole numbers.
absl::Status CheckBytes(const PlannerInput& input) {
  constexpr double kBytesMax = 4e18;
  double bytes = 0;
  for (const LayerCost& layer : input.layers) {
    bytes += static_cast<double>(layer.param_bytes) + static_cast<double>(layer.state_bytes) +
             input.num_microbatches * (static_cast<double>(layer.activation_bytes) +
                                       static_cast<double>(layer.output_bytes));
  }
  if (bytes <= kBytesMax) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("all layers with ", input.num_microbatches,
                                                 " micro-batches in flight need ", bytes,
                                                 " bytes; the planner counts up to ", kBytesMax));
}

absl::Status CheckInput(const PlannerInput& input) {
  const int64_t num_layers = static_cast<int64_t>(input.layers.size());
  SP_RETURN_IF_ERROR(CheckRange("number of layers", num_layers, 1, limits::kLayersMax));
  SP_RETURN_IF_ERROR(CheckRange("num_stages", input.num_stages, 1,
                                std::min<int64_t>(num_layers, limits::kStagesMax)));
  SP_RETURN_IF_ERROR(
      CheckRange("num_microbatches", input.num_microbatches, 1, limits::kMicrobatchesMax));
  SP_RETURN_IF_ERROR(CheckRange("frontier", input.frontier.value(), 0, num_layers - 1));
  for (size_t i = 0; i < input.layers.size(); ++i) {
    SP_RETURN_IF_ERROR(CheckLayer(input.layers[i], i));
  }
  SP_RETURN_IF_ERROR(CheckBytes(input));
  SP_RETURN_IF_ERROR(CheckAmount("link_bytes_per_s", input.link_bytes_per_s));
  SP_RETURN_IF_ERROR(CheckAmount("link_latency_s", input.link_latency_s));
  SP_RETURN_IF_ERROR(CheckAmount("memory_limit_bytes", input.memory_limit_bytes));
  SP_RETURN_IF_ERROR(CheckAmount("num_cores", input.num_cores));
  SP_RETURN_IF_ERROR(CheckRange("stages_per_worker", input.stages_per_worker, 1, input.num_stages));
  if (input.num_stages % input.stages_per_worker != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("num_stages is ", input.num_stages,
                     ", no multiple of stages_per_worker = ", input.stages_per_worker));
  }
  if (!input.worker_speed.empty() &&
      input.worker_speed.size() != static_cast<size_t>(input.num_workers())) {
    return absl::InvalidArgumentError(absl::StrCat("worker_speed has ", input.worker_speed.size(),
                                                   " entries for ", input.num_workers(),
                                                   " workers"));
  }
  for (size_t s = 0; s < input.worker_speed.size(); ++s) {
    if (std::isfinite(input.worker_speed[s]) && input.worker_speed[s] > 0) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        "worker_speed[", s, "] is ", input.worker_speed[s], "; it must be finite and positive"));
  }
  return Compile(input.shape(0), input.schedule).status();
}

absl::Status CheckCuts(const PlannerInput& input, const std::vector<LayerIndex>& cuts) {
  if (cuts.size() + 1 != static_cast<size_t>(input.num_stages)) {
    return absl::InvalidArgumentError(
        absl::StrCat("there are ", cuts.size(), " cuts for ", input.num_stages, " stages"));
  }
  const Borders borders = ToBorders(cuts, static_cast<int32_t>(input.layers.size()));
  for (size_t s = 0; s + 1 < borders.size(); ++s) {
    if (borders[s] < borders[s + 1]) continue;
    return absl::InvalidArgumentError(absl::StrCat("stage ", s, " would hold layers [", borders[s],
                                                   ",", borders[s + 1],
                                                   "); each stage holds at least one"));
  }
  return absl::OkStatus();
}

// Simulates cuts; the programs depend on the number of frozen stages alone and are made once for
// each.
class StepSimulator {
 public:
  explicit StepSimulator(const PlannerInput& input) : input_(input) {}

  absl::StatusOr<double> StepSeconds(const std::vector<LayerIndex>& cuts) {
    SP_ASSIGN_OR_RETURN(const Play* play, GetPlay(cuts));
    const std::vector<StageCost> costs = StageCosts(input_, cuts);
    const std::vector<LinkCost> links = LinkCosts(input_, cuts);
    if (input_.shares_cores()) {
      work_ += play->num_shared_steps(kSharedSteps) * input_.num_workers() * play->num_events();
      return play->RunShared(costs, links, kSharedSteps, input_.num_cores).step_s;
    }
    work_ += kSimulatedSteps * play->num_events();
    return play->Run(costs, links, kSimulatedSteps, false).step_s;
  }

  // Of the step that begins in an empty pipeline.
  absl::StatusOr<double> FirstStepSeconds(const std::vector<LayerIndex>& cuts) {
    SP_ASSIGN_OR_RETURN(const Play* play, GetPlay(cuts));
    const std::vector<StageCost> costs = StageCosts(input_, cuts);
    const std::vector<LinkCost> links = LinkCosts(input_, cuts);
    return input_.shares_cores() ? play->RunShared(costs, links, 1, input_.num_cores).makespan_s
                                 : play->Run(costs, links, 1, /*trace=*/false).makespan_s;
  }

  // Instructions played so far, and what making the programs was worth in them.
  int64_t work() const { return work_; }

 private:
  absl::StatusOr<const Play*> GetPlay(const std::vector<LayerIndex>& cuts) {
    const int32_t num_frozen =
        NumFrozenStages(cuts, static_cast<int32_t>(input_.layers.size()), input_.frontier);
    auto found = plays_.find(num_frozen);
    if (found != plays_.end()) return &found->second;
    const ScheduleShape shape = input_.shape(num_frozen);
    SP_ASSIGN_OR_RETURN(const std::vector<Program> compute, Compile(shape, input_.schedule));
    SP_ASSIGN_OR_RETURN(
        Play play,
        Play::Make(shape, AddMessages(shape, compute), SendMode::kBuffered,
                   DefaultCredits(shape, input_.schedule, input_.run_ahead), input_.run_ahead));
    work_ += kMakingCost * play.num_events();
    return &plays_.emplace(num_frozen, std::move(play)).first->second;
  }

  const PlannerInput& input_;
  int64_t work_ = 0;
  std::map<int32_t, Play> plays_;
};

// `borders`: the cuts whose worst worker is short by the least; of all, or of those that were
// tried.
absl::Status NoPlanFits(const PlannerInput& input, const CutModel& model, const Borders& borders,
                        bool of_all) {
  int32_t last = input.num_stages - input.num_workers();  // last stage of the worst worker
  for (int32_t s = last + 1; s < input.num_stages; ++s) {
    if (model.WorkerBytes(borders, s) > model.WorkerBytes(borders, last)) last = s;
  }
  return absl::ResourceExhaustedError(absl::StrCat(
      of_all ? "no cuts fit" : "no cuts were found that fit", " memory_limit_bytes = ",
      input.memory_limit_bytes, ": with the least demanding", of_all ? "" : " ones tried", ", ",
      FormatCuts(ToCuts(borders), model.num_layers(), input.frontier), ", worker ",
      last % input.num_workers(), " needs ", model.WorkerBytes(borders, last), " bytes, ",
      model.ExcessBytes(borders, last),
      " too many; use more stages, smaller micro-batches or a higher limit"));
}

}  // namespace

std::vector<StageCost> StageCosts(const PlannerInput& input, const std::vector<LayerIndex>& cuts) {
  const int32_t num_layers = static_cast<int32_t>(input.layers.size());
  std::vector<StageCost> costs(cuts.size() + 1);
  for (int32_t s = 0; s < static_cast<int32_t>(costs.size()); ++s) {
    StageCost& cost = costs[s];
    const LayerRange range = StageLayers(cuts, num_layers, StageIndex(s));
    for (LayerIndex i = range.first_layer; i < range.end_layer; ++i) {
      const LayerCost& layer = input.layers[i.value()];
      cost.forward_s += layer.forward_s;
      if (i < input.frontier) continue;
      if (i > input.frontier) cost.input_grad_s += layer.input_grad_s;
      cost.weight_grad_s += layer.weight_grad_s;
      cost.optimize_s += layer.optimize_s;
    }
    const double speed = input.stage_speed(s);
    cost.forward_s /= speed;
    cost.input_grad_s /= speed;
    cost.weight_grad_s /= speed;
    cost.optimize_s /= speed;
  }
  return costs;
}

std::vector<LinkCost> LinkCosts(const PlannerInput& input, const std::vector<LayerIndex>& cuts) {
  std::vector<LinkCost> links;
  if (input.link_bytes_per_s == 0 && input.link_latency_s == 0) return links;
  for (LayerIndex cut : cuts) {
    const double bytes = static_cast<double>(input.layers[cut.value() - 1].output_bytes);
    const double transfer_s = input.link_bytes_per_s == 0 ? 0 : bytes / input.link_bytes_per_s;
    links.push_back({input.link_latency_s, transfer_s, transfer_s});
  }
  return links;
}

int32_t NumFrozenStages(const std::vector<LayerIndex>& cuts, int32_t num_layers,
                        LayerIndex frontier) {
  return frontier.value() >= num_layers ? static_cast<int32_t>(cuts.size())
                                        : StageOfLayer(cuts, frontier).value();
}

int64_t StageMemoryBytes(const PlannerInput& input, StageIndex stage, LayerRange layers) {
  return CutModel(input).MemoryBytes(stage.value(), layers.first_layer.value(),
                                     layers.end_layer.value());
}

absl::StatusOr<double> SimulatedStepSeconds(const PlannerInput& input,
                                            const std::vector<LayerIndex>& cuts) {
  SP_RETURN_IF_ERROR(CheckInput(input));
  SP_RETURN_IF_ERROR(CheckCuts(input, cuts));
  return StepSimulator(input).StepSeconds(cuts);
}

absl::StatusOr<double> RefillSeconds(const PlannerInput& input,
                                     const std::vector<LayerIndex>& cuts) {
  SP_RETURN_IF_ERROR(CheckInput(input));
  SP_RETURN_IF_ERROR(CheckCuts(input, cuts));
  StepSimulator simulator(input);
  SP_ASSIGN_OR_RETURN(const double first_s, simulator.FirstStepSeconds(cuts));
  SP_ASSIGN_OR_RETURN(const double step_s, simulator.StepSeconds(cuts));
  return std::max(0.0, first_s - step_s);
}

absl::StatusOr<double> EvenStepSeconds(const PlannerInput& input) {
  SP_RETURN_IF_ERROR(CheckInput(input));
  return CutModel(input).even_s();
}

absl::StatusOr<PartitionResult> Partition(const PlannerInput& input) {
  return Partition(input, kSearchBudget);
}

absl::StatusOr<PartitionResult> Partition(const PlannerInput& input, int64_t budget) {
  SP_RETURN_IF_ERROR(CheckInput(input));
  const CutModel model(input);
  std::vector<Borders> start = model.Candidates();
  if (start.empty()) {
    start.push_back(model.LeastMemory());
    // Only where workers have several stages may cuts whose largest stage is larger need less.
    if (input.stages_per_worker == 1 && model.ExcessBytes(start[0]) > 0) {
      return NoPlanFits(input, model, start[0], /*of_all=*/true);
    }
  }
  StepSimulator simulator(input);
  auto simulate = [&](const Borders& borders) {
    const int64_t before = simulator.work();
    // Checked input always plays.
    const double step_s = simulator.StepSeconds(ToCuts(borders)).value();
    return CutSearch::Played{step_s, simulator.work() - before};
  };
  CutSearch search(model, simulate, budget);
  const Borders best = search.Run(start);
  if (search.best().excess_bytes > 0) return NoPlanFits(input, model, best, search.exhausted());
  PartitionResult result;
  result.cuts = ToCuts(best);
  result.step_s = search.best().step_s;
  result.even_s = model.even_s();
  result.floor_s = std::max(result.even_s, model.heaviest_s());
  return result;
}

}  // namespace smartpipe
