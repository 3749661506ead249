// Replays tests/scenario/pipeline/*.txt.
//
//   compile|lower schedule= stages= microbatches= [frozen=]     the programs of all ranks
//   validate stages= microbatches= [frozen=]                    body: one program per line
//   simulate schedule= ... [forward= backward= optimize=] [steps=] [credits=] [send=rendezvous]
//   plan schedule= stages= microbatches= [frontier=] [memory=]  body: one layer per line: f d w
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "gtest/gtest.h"
#include "pipeline/partition.h"
#include "pipeline/schedule.h"
#include "pipeline/simulate.h"
#include "tests/testutil/scenario.h"

namespace smartpipe {
namespace {

using testutil::ScenarioCommand;

ScheduleShape Shape(const ScenarioCommand& command) {
  ScheduleShape shape;
  shape.num_stages = static_cast<int32_t>(command.IntArg("stages", 1));
  shape.num_microbatches = static_cast<int32_t>(command.IntArg("microbatches", 1));
  shape.num_frozen_stages = static_cast<int32_t>(command.IntArg("frozen", 0));
  return shape;
}

std::string Show(const absl::StatusOr<std::vector<Program>>& programs) {
  return programs.ok() ? FormatGrid(*programs)
                       : absl::StrCat("error: ", programs.status().message());
}

// One row per rank and one column per unit of time: F and B with the micro-batch's digit, a dot for
// an idle unit.
std::string Picture(const SimulateResult& result) {
  std::string picture;
  for (size_t rank = 0; rank < result.trace.size(); ++rank) {
    std::string row(static_cast<size_t>(result.makespan_s + 0.5) * 2, ' ');
    for (size_t i = 0; i < row.size(); i += 2) row[i] = '.';
    for (const TimedInstruction& cell : result.trace[rank]) {
      if (!IsCompute(cell.instruction.op)) continue;
      for (int at = static_cast<int>(cell.start_s); at < static_cast<int>(cell.end_s); ++at) {
        row[2 * at] = OpName(cell.instruction.op)[0];
        row[2 * at + 1] = static_cast<char>('0' + cell.instruction.microbatch.value() % 10);
      }
    }
    absl::StrAppend(&picture, "rank ", rank, " |", row, "|\n");
  }
  return picture;
}

std::string PlaySimulate(const ScenarioCommand& command) {
  const ScheduleShape shape = Shape(command);
  const std::string schedule = command.Arg("schedule");
  const auto programs = MakePrograms(shape, schedule);
  if (!programs.ok()) return Show(programs);
  std::vector<StageCost> costs;
  for (int s = 0; s < shape.num_stages; ++s) {
    const bool trains = s >= shape.num_frozen_stages;
    costs.push_back({command.DoubleArg("forward", 1), 0,
                     trains ? command.DoubleArg("backward", 1) : 0,
                     trains ? command.DoubleArg("optimize", 0) : 0});
  }
  SimulateOptions options;
  if (command.Arg("send") == "rendezvous") options.send_mode = SendMode::kRendezvous;
  options.num_steps = static_cast<int>(command.IntArg("steps", 1));
  options.credits = DefaultCredits(shape, schedule);
  if (const int64_t credits = command.IntArg("credits", 0); credits > 0) {
    options.credits.assign(options.credits.size(), static_cast<int32_t>(credits));
  }
  const auto result = Simulate(shape, *programs, costs, {}, options);
  if (!result.ok()) return absl::StrCat("error: ", result.status().message());
  std::string out = absl::StrFormat("time %g, step %g, busy", result->makespan_s, result->step_s);
  for (double busy_s : result->busy_s) absl::StrAppendFormat(&out, " %g", busy_s);
  return absl::StrCat(out, "\n", Picture(*result));
}

std::string PlayPlan(const ScenarioCommand& command) {
  PlannerInput input;
  for (absl::string_view line : absl::StrSplit(command.body, '\n', absl::SkipEmpty())) {
    const std::vector<std::string> words = absl::StrSplit(line, ' ', absl::SkipEmpty());
    LayerCost layer;
    if (words.size() != 3 || !absl::SimpleAtod(words[0], &layer.forward_s) ||
        !absl::SimpleAtod(words[1], &layer.input_grad_s) ||
        !absl::SimpleAtod(words[2], &layer.weight_grad_s)) {
      return absl::StrCat("error: a layer is three numbers, not `", line, "`");
    }
    input.layers.push_back(layer);
  }
  input.schedule = command.Arg("schedule");
  input.num_stages = static_cast<int32_t>(command.IntArg("stages", 1));
  input.num_microbatches = static_cast<int32_t>(command.IntArg("microbatches", 1));
  input.frontier = LayerIndex(static_cast<int32_t>(command.IntArg("frontier", 0)));
  const auto result = Partition(input);
  if (!result.ok()) return absl::StrCat("error: ", result.status().message());
  const int32_t num_layers = static_cast<int32_t>(input.layers.size());
  return absl::StrFormat("%s step %g, no cut is below %g, freezing gains at most %.3fx",
                         FormatCuts(result->cuts, num_layers, input.frontier), result->step_s,
                         result->even_s, SpeedupLimit(input.layers, input.frontier));
}

std::string PlayValidate(const ScenarioCommand& command) {
  std::vector<Program> programs;
  for (absl::string_view line : absl::StrSplit(command.body, '\n', absl::SkipEmpty())) {
    const auto program = ParseProgram(line);
    if (!program.ok()) return absl::StrCat("error: ", program.status().message());
    programs.push_back(*program);
  }
  const absl::Status status = ValidatePrograms(Shape(command), programs);
  return status.ok() ? "valid" : absl::StrCat("error: ", status.message());
}

std::string Handle(const ScenarioCommand& command) {
  if (command.name == "compile") return Show(Compile(Shape(command), command.Arg("schedule")));
  if (command.name == "lower") return Show(MakePrograms(Shape(command), command.Arg("schedule")));
  if (command.name == "validate") return PlayValidate(command);
  if (command.name == "simulate") return PlaySimulate(command);
  if (command.name == "plan") return PlayPlan(command);
  return absl::StrCat("error: unknown command ", command.name);
}

TEST(PipelineScenario, Files) {
  for (const std::string& path : testutil::ScenarioFiles("pipeline")) {
    testutil::RunScenario(path, Handle);
  }
}

}  // namespace
}  // namespace smartpipe
