// What `smartpipe simulate` shows: text, JSON, picture.
#include <algorithm>
#include <cmath>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "cli/picture.h"
#include "cli/render.h"
#include "cli/simulate_command.h"
#include "nlohmann/json.hpp"
#include "pipeline/paper_rules.h"
#include "pipeline/schedule.h"

namespace smartpipe {
namespace {

constexpr int kColumns = 80;
constexpr absl::string_view kTooWide =
    "The rows are too wide for a terminal of 80 columns: use --svg FILE.\n\n";

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

double Bubbles(const PlayedPipeline& played) {
  double idle_s = 0;
  for (const RankUse& use : RankUses(played.result)) idle_s += use.idle_s;
  return idle_s * played.scale;
}

// Number of the sample over the whole run.
int SampleOf(const SimulateArguments& arguments, const TimedInstruction& timed) {
  const int microbatch = timed.instruction.microbatch.value();
  return arguments.flush == "step" ? timed.step * arguments.batch + microbatch : microbatch;
}

std::string Headline(const SimulateArguments& arguments) {
  const int num_batches = (arguments.samples + arguments.batch - 1) / arguments.batch;
  std::string text = absl::StrCat(TraitsOf(arguments.schedule)->title, ", ", arguments.stages,
                                  arguments.stages == 1 ? " stage" : " stages");
  if (arguments.stages_per_worker > 1)
    absl::StrAppend(&text, " on ", arguments.num_workers(),
                    arguments.num_workers() == 1 ? " worker" : " workers");
  if (arguments.frozen_stages > 0)
    absl::StrAppend(&text, " (", arguments.frozen_stages, " frozen)");
  absl::StrAppend(&text, ", ", arguments.samples, arguments.samples == 1 ? " sample" : " samples");
  if (num_batches == 1) return absl::StrCat(text, " in one batch");
  return absl::StrCat(text, " in batches of ", arguments.batch);
}

std::string Totals(const PlayedPipeline& played, double scale, const std::string& unit) {
  const std::string word = unit == "slots" ? "" : absl::StrCat(" ", unit);
  return absl::StrCat("time ", Figure(played.result.makespan_s * scale), word, ", bubbles ",
                      Figure(Bubbles(played) / played.scale * scale), word);
}
std::string Totals(const PlayedPipeline& played) {
  return Totals(played, played.scale, played.unit);
}

// A row is a worker, named by its stage if it has just one.
std::string RowName(const SimulateArguments& arguments, int worker) {
  return absl::StrCat(arguments.stages_per_worker == 1 ? "stage " : "worker ", worker);
}

std::vector<int> StagesOf(const SimulateArguments& arguments, int worker) {
  std::vector<int> stages;
  for (int s = worker; s < arguments.stages; s += arguments.num_workers()) stages.push_back(s);
  return stages;
}

std::string RowName(const SimulateArguments& arguments, int worker, const RankUse& use) {
  return absl::StrCat(RowName(arguments, worker), use.frozen ? " frozen" : "");
}

// "F3", or "2F3" where the row does not say the stage.
std::string Cell(const SimulateArguments& arguments, const TimedInstruction& timed) {
  return absl::StrCat(
      arguments.stages_per_worker == 1 ? "" : absl::StrCat(timed.instruction.stage.value()),
      timed.instruction.op == Op::kForward ? "F" : "B", SampleOf(arguments, timed));
}

// One cell per slot, if that fits the terminal; bubbles as dots. Empty for other units.
std::string Timetable(const SimulateArguments& arguments, const PlayedPipeline& played) {
  if (played.unit != "slots") return "";
  const int num_slots = static_cast<int>(played.result.makespan_s);
  if (num_slots > kColumns) return std::string(kTooWide);
  const std::vector<RankUse> uses = RankUses(played.result);
  std::vector<std::vector<std::string>> rows;
  size_t left = 0, width = 0;
  for (size_t w = 0; w < uses.size(); ++w) {
    left = std::max(left, RowName(arguments, w, uses[w]).size() + 2);
    std::vector<std::string>& cells = rows.emplace_back(static_cast<size_t>(uses[w].end_s), ".");
    for (const TimedInstruction& timed : played.result.trace[w]) {
      const Op op = timed.instruction.op;
      if (op != Op::kForward && op != Op::kBackward) continue;
      std::string& cell = cells[static_cast<size_t>(timed.start_s)];
      cell = Cell(arguments, timed);
      width = std::max(width, cell.size() + 1);
    }
  }
  if (left + num_slots * width > kColumns + 1) return std::string(kTooWide);
  std::string text;
  auto add_row = [&](const std::string& name, const std::vector<std::string>& cells) {
    std::string line = absl::StrFormat("%-*s", static_cast<int>(left), name);
    for (const std::string& cell : cells)
      absl::StrAppendFormat(&line, "%-*s", static_cast<int>(width), cell);
    line.erase(line.find_last_not_of(' ') + 1);
    absl::StrAppend(&text, line, "\n");
  };
  for (size_t w = 0; w < uses.size(); ++w) add_row(RowName(arguments, w, uses[w]), rows[w]);
  std::vector<std::string> axis(num_slots);
  for (int slot = 0; slot < num_slots; slot += 2) axis[slot] = absl::StrCat(slot);
  add_row("slot", axis);
  return absl::StrCat(text, "\n");
}

std::string LoadTable(const SimulateArguments& arguments, const PlayedPipeline& played) {
  std::vector<std::vector<std::string>> rows = {{"", "busy", "idle", "busy share"}};
  const std::vector<RankUse> uses = RankUses(played.result);
  for (size_t w = 0; w < uses.size(); ++w) {
    const RankUse& use = uses[w];
    const double share = played.result.makespan_s > 0 ? use.busy_s / played.result.makespan_s : 0;
    rows.push_back({RowName(arguments, w, use), Figure(use.busy_s * played.scale),
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
  return absl::StrCat(text, " With --flush step, as the engine trains: ", Totals(*exact), ".");
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
      {"stages_per_worker", arguments.stages_per_worker},
      {"samples", arguments.samples},
      {"batch", arguments.batch},
      {"frozen_stages", arguments.frozen_stages},
      {"flush", arguments.flush},
      {"unit", played.unit},
      {"time", Number(played.result.makespan_s * played.scale)},
      {"bubbles", Number(Bubbles(played))},
      {"stale_weights", NeedsStaleWeights(played.result, arguments.frozen_stages)}};
  nlohmann::ordered_json workers = nlohmann::ordered_json::array();
  for (const RankUse& use : RankUses(played.result)) {
    workers.push_back({{"worker", workers.size()},
                       {"stages", StagesOf(arguments, static_cast<int>(workers.size()))},
                       {"frozen", use.frozen},
                       {"busy", Number(use.busy_s * played.scale)},
                       {"idle", Number(use.idle_s * played.scale)},
                       {"end", Number(use.end_s * played.scale)}});
  }
  json["workers"] = std::move(workers);
  return json.dump() + "\n";
}

std::string SimulateText(const SimulateArguments& arguments, const PlayedPipeline& played) {
  return absl::StrCat(Headline(arguments), ": ", Totals(played), "\n\n",
                      Timetable(arguments, played), LoadTable(arguments, played), "\n",
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
      absl::StrCat(Totals(played, scale, picture.unit),
                   arguments.flush == "step" ? " (--flush step: as the engine trains)"
                                             : " (--flush none: the paper's rules)");
  picture.end = result.makespan_s * scale;
  if (!(picture.end > 0)) {
    return absl::InvalidArgumentError("--svg: all times are 0: there is nothing to draw");
  }
  const std::vector<RankUse> uses = RankUses(result);
  for (int w = 0; w < arguments.num_workers(); ++w) {
    std::string note = uses[w].frozen ? "frozen" : "";
    if (arguments.stages_per_worker > 1)
      note = absl::StrCat("stages ", absl::StrJoin(StagesOf(arguments, w), ", "));
    picture.rows.push_back({RowName(arguments, w), note, 0, uses[w].end_s * scale});
    for (const TimedInstruction& timed : result.trace[w]) {
      const Op op = timed.instruction.op;
      if (!IsCompute(op) || timed.end_s <= timed.start_s) continue;
      const int sample = SampleOf(arguments, timed), stage = timed.instruction.stage.value();
      const bool optimize = op == Op::kOptimize;
      PictureBox box = {w, timed.start_s * scale, timed.end_s * scale};
      if (op != Op::kForward) box.kind = optimize ? BoxKind::kOptimize : BoxKind::kBackward;
      box.frozen = stage < arguments.frozen_stages;
      if (!optimize) {
        box.label =
            arguments.stages_per_worker == 1 ? absl::StrCat(sample) : Cell(arguments, timed);
      }
      box.tip = absl::StrCat(
          "stage ", stage, ": ", Verb(op), " of ",
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
