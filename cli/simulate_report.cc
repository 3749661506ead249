// What `smartpipe simulate` shows: text, JSON, picture.
#include <algorithm>
#include <cmath>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/string_view.h"
#include "cli/picture.h"
#include "cli/render.h"
#include "cli/simulate_command.h"
#include "nlohmann/json.hpp"
#include "pipeline/paper_rules.h"

namespace smartpipe {
namespace {

constexpr int kColumns = 80;

// To a thousandth: exact for slots and for nanoseconds as microseconds.
double Rounded(double value) { return std::round(value * 1000) / 1000; }

std::string Figure(double value) {
  std::string text = absl::StrFormat("%.3f", Rounded(value));
  text.erase(text.find_last_not_of('0') + 1);
  if (text.back() == '.') text.pop_back();
  return text;
}

// An integer where it is one.
nlohmann::ordered_json Number(double value) {
  const double rounded = Rounded(value);
  if (rounded == std::floor(rounded) && std::abs(rounded) < 1e15) {
    return static_cast<int64_t>(rounded);
  }
  return rounded;
}

double Bubbles(const SimulateArguments& arguments, const PlayedPipeline& played) {
  double idle_s = 0;
  for (const StageUse& use : StageUses(played.result, arguments.frozen_stages))
    idle_s += use.idle_s;
  return idle_s * played.scale;
}

// Number of the sample over the whole run.
int SampleOf(const SimulateArguments& arguments, const TimedInstruction& timed) {
  const int microbatch = timed.instruction.microbatch.value();
  return arguments.flush == "step" ? timed.step * arguments.batch + microbatch : microbatch;
}

std::string Headline(const SimulateArguments& arguments) {
  const int num_batches = (arguments.samples + arguments.batch - 1) / arguments.batch;
  std::string text = absl::StrCat(arguments.schedule == "gpipe" ? "GPipe" : "1F1B", ", ",
                                  arguments.stages, arguments.stages == 1 ? " stage" : " stages");
  if (arguments.frozen_stages > 0)
    absl::StrAppend(&text, " (", arguments.frozen_stages, " frozen)");
  absl::StrAppend(&text, ", ", arguments.samples, arguments.samples == 1 ? " sample" : " samples");
  if (num_batches == 1) return absl::StrCat(text, " in one batch");
  return absl::StrCat(text, " in batches of ", arguments.batch);
}

std::string Totals(const SimulateArguments& arguments, const PlayedPipeline& played, double scale,
                   const std::string& unit) {
  const std::string word = unit == "slots" ? "" : absl::StrCat(" ", unit);
  return absl::StrCat("time ", Figure(played.result.makespan_s * scale), word, ", bubbles ",
                      Figure(Bubbles(arguments, played) / played.scale * scale), word);
}
std::string Totals(const SimulateArguments& arguments, const PlayedPipeline& played) {
  return Totals(arguments, played, played.scale, played.unit);
}

std::string RowName(const SimulateArguments& arguments, int stage) {
  return absl::StrCat("stage ", stage, stage < arguments.frozen_stages ? " frozen" : "");
}

// One cell per slot, if that fits the terminal; bubbles as dots.
std::string Timetable(const SimulateArguments& arguments, const PlayedPipeline& played) {
  if (played.unit != "slots") return "";
  const std::vector<StageUse> uses = StageUses(played.result, arguments.frozen_stages);
  const int cell = 2 + static_cast<int>(absl::StrCat(arguments.samples - 1).size());
  int left = 0;
  for (int s = 0; s < arguments.stages; ++s)
    left = std::max(left, static_cast<int>(RowName(arguments, s).size()) + 2);
  const int num_slots = static_cast<int>(played.result.makespan_s);
  if (left + num_slots * cell > kColumns + 1) return "";
  std::string text;
  for (int s = 0; s < arguments.stages; ++s) {
    std::vector<std::string> cells(static_cast<size_t>(uses[s].end_s), ".");
    for (const TimedInstruction& timed : played.result.trace[s]) {
      const Op op = timed.instruction.op;
      if (op != Op::kForward && op != Op::kBackward) continue;
      cells[static_cast<size_t>(timed.start_s)] =
          absl::StrCat(op == Op::kForward ? "F" : "B", SampleOf(arguments, timed));
    }
    std::string line = absl::StrFormat("%-*s", left, RowName(arguments, s));
    for (const std::string& word : cells) absl::StrAppendFormat(&line, "%-*s", cell, word);
    line.erase(line.find_last_not_of(' ') + 1);
    absl::StrAppend(&text, line, "\n");
  }
  std::string axis = absl::StrFormat("%-*s", left, "slot");
  for (int slot = 0; slot < num_slots; ++slot)
    absl::StrAppendFormat(&axis, "%-*s", cell, slot % 2 ? "" : absl::StrCat(slot));
  axis.erase(axis.find_last_not_of(' ') + 1);
  return absl::StrCat(text, axis, "\n\n");
}

std::string StageTable(const SimulateArguments& arguments, const PlayedPipeline& played) {
  std::vector<std::vector<std::string>> rows = {{"", "busy", "idle", "busy share"}};
  const std::vector<StageUse> uses = StageUses(played.result, arguments.frozen_stages);
  for (int s = 0; s < arguments.stages; ++s) {
    const StageUse& use = uses[s];
    const double share = played.result.makespan_s > 0 ? use.busy_s / played.result.makespan_s : 0;
    rows.push_back({RowName(arguments, s), Figure(use.busy_s * played.scale),
                    Figure(use.idle_s * played.scale), absl::StrFormat("%.1f%%", 100 * share)});
  }
  return FormatColumns(rows);
}

// What the figures are worth: the paper's rules against what the engine does.
std::string Comparison(const SimulateArguments& arguments, const PlayedPipeline& played) {
  if (arguments.flush == "step") {
    return "As the engine trains: no trainable stage starts a step before its optimizer step.";
  }
  SimulateArguments step = arguments;
  step.flush = "step";
  std::string text = "By the paper's rules (--flush none).";
  if (NeedsStaleWeights(played.result, arguments.frozen_stages)) {
    text =
        "By the paper's rules (--flush none): these figures need stale weights, because a batch "
        "starts before the optimizer step of the batch before it.";
  }
  const absl::StatusOr<PlayedPipeline> exact = PlayPipeline(step);
  if (!exact.ok()) return text;
  return absl::StrCat(text, " With --flush step, as the engine trains: ", Totals(step, *exact),
                      ".");
}

absl::string_view Verb(Op op) {
  if (op == Op::kOptimize) return "optimizer step";
  return op == Op::kForward ? "forward" : "backward";
}

}  // namespace

std::string SimulateJson(const SimulateArguments& arguments, const PlayedPipeline& played) {
  nlohmann::ordered_json json = {
      {"schedule", arguments.schedule},
      {"stages", arguments.stages},
      {"samples", arguments.samples},
      {"batch", arguments.batch},
      {"frozen_stages", arguments.frozen_stages},
      {"flush", arguments.flush},
      {"unit", played.unit},
      {"time", Number(played.result.makespan_s * played.scale)},
      {"bubbles", Number(Bubbles(arguments, played))},
      {"stale_weights", NeedsStaleWeights(played.result, arguments.frozen_stages)}};
  nlohmann::ordered_json stages = nlohmann::ordered_json::array();
  for (const StageUse& use : StageUses(played.result, arguments.frozen_stages)) {
    stages.push_back({{"stage", stages.size()},
                      {"frozen", use.frozen},
                      {"busy", Number(use.busy_s * played.scale)},
                      {"idle", Number(use.idle_s * played.scale)},
                      {"end", Number(use.end_s * played.scale)}});
  }
  json["stage"] = std::move(stages);
  return json.dump() + "\n";
}

std::string SimulateText(const SimulateArguments& arguments, const PlayedPipeline& played) {
  return absl::StrCat(Headline(arguments), ": ", Totals(arguments, played), "\n\n",
                      Timetable(arguments, played), StageTable(arguments, played), "\n",
                      Wrap(Comparison(arguments, played), kColumns - 1, 0));
}

absl::StatusOr<std::string> SimulateSvg(const SimulateArguments& arguments,
                                        const PlayedPipeline& played) {
  const SimulateResult& result = played.result;
  double scale = played.scale;
  Picture picture;
  picture.unit = played.unit;
  if (picture.unit == "us" && result.makespan_s > 0.01) {
    picture.unit = "ms";
    scale = 1e3;
  }
  picture.title = Headline(arguments);
  picture.subtitle =
      absl::StrCat(Totals(arguments, played, scale, picture.unit),
                   arguments.flush == "step" ? " (--flush step: as the engine trains)"
                                             : " (--flush none: the paper's rules)");
  picture.end = result.makespan_s * scale;
  if (!(picture.end > 0)) {
    return absl::InvalidArgumentError("all times are 0: there is nothing to draw");
  }
  const std::vector<StageUse> uses = StageUses(result, arguments.frozen_stages);
  for (int s = 0; s < arguments.stages; ++s) {
    const bool frozen = uses[s].frozen;
    picture.rows.push_back(
        {absl::StrCat("stage ", s), frozen ? "frozen" : "", 0, uses[s].end_s * scale});
    for (const TimedInstruction& timed : result.trace[s]) {
      const Op op = timed.instruction.op;
      if (!IsCompute(op) || timed.end_s <= timed.start_s) continue;
      const int sample = SampleOf(arguments, timed);
      const bool optimize = op == Op::kOptimize;
      PictureBox box = {s, timed.start_s * scale, timed.end_s * scale};
      if (op != Op::kForward) box.kind = optimize ? BoxKind::kOptimize : BoxKind::kBackward;
      box.frozen = frozen;
      if (!optimize) box.label = absl::StrCat(sample);
      box.tip = absl::StrCat(
          "stage ", s, ": ", Verb(op), " of ",
          optimize ? absl::StrCat("batch ", timed.step) : absl::StrCat("sample ", sample), ", ",
          Figure(box.start), " to ", Figure(box.end), " ", picture.unit);
      picture.boxes.push_back(std::move(box));
    }
  }
  if (static_cast<int64_t>(picture.boxes.size()) > kPictureBoxesMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("--svg: the picture would have ", picture.boxes.size(), " boxes, at most ",
                     kPictureBoxesMax, " can be read; use fewer samples or stages"));
  }
  return ToSvg(picture);
}

}  // namespace smartpipe
