#include "cli/timeline_command.h"

#include <filesystem>
#include <iostream>
#include <system_error>

#include "CLI/CLI.hpp"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "cli/commands.h"
#include "cli/complaint.h"
#include "cli/files.h"
#include "cli/perfetto.h"
#include "cli/picture.h"
#include "cli/render.h"
#include "cli/run_trace.h"
#include "cli/timeline.h"

namespace smartpipe {
namespace {

int DrawSvg(const RunTrace& run, const StepWindow& window, const std::string& path) {
  const absl::StatusOr<Picture> picture = TimelinePicture(run, window);
  if (!picture.ok()) return Fail(picture.status(), kExitUsage);
  if (const absl::Status written = WriteFileAtomically(path, ToSvg(*picture)); !written.ok())
    return Fail(written, kExitFailed);
  std::cout << Wrap(absl::StrCat(path, ": steps ", window.first_step, " to ", window.end_step - 1,
                                 ", ", window.why, "; choose others with --steps A:B"),
                    80, 0);
  return kExitFinished;
}

int DrawPerfetto(const RunTrace& run, int64_t first_step, int64_t end_step,
                 const std::string& path) {
  const absl::StatusOr<PerfettoResult> result = WritePerfetto(run, first_step, end_step, path);
  if (!result.ok()) return Fail(result.status(), kExitFailed);
  std::string text = absl::StrFormat(
      "%s: steps %d to %d, %d events, %.1f MB; open it in ui.perfetto.dev", path, first_step,
      result->end_step - 1, result->num_events, static_cast<double>(result->bytes) / 1e6);
  if (result->end_step < end_step) {
    absl::StrAppend(&text, ". The steps from ", result->end_step, " to ", end_step - 1,
                    " are left out, as a browser takes no more than about ",
                    kPerfettoBytesMax >> 20, " MiB: choose them with --steps ", result->end_step,
                    ":", end_step);
  }
  std::cout << Wrap(text, 80, 0);
  return kExitFinished;
}

// Whether the paths name one file, which need not exist yet.
bool SameFile(const std::filesystem::path& a, const std::filesystem::path& b) {
  std::error_code error;
  return std::filesystem::absolute(a, error).lexically_normal() ==
         std::filesystem::absolute(b, error).lexically_normal();
}

}  // namespace

CLI::App* AddTimelineCommand(CLI::App& app, TimelineArguments& arguments) {
  CLI::App* command = app.add_subcommand("timeline", "draw what each worker did, and when");
  command->add_option("RUN", arguments.run_dir, "run directory, with traces (worker.trace)")
      ->required()
      ->type_name("");
  command->add_option("--svg", arguments.svg_path, "picture of a few steps")->type_name("FILE");
  command->add_option("--perfetto", arguments.perfetto_path, "all steps, for ui.perfetto.dev")
      ->type_name("FILE");
  command->add_option("--steps", arguments.steps, "steps A to B-1 [around the first change]")
      ->type_name("A:B");
  command->footer(
      "Without --svg and --perfetto: what was recorded, and how exact the clocks are.\n\n"
      "Example: smartpipe timeline runs/fixed --svg pipeline.svg --steps 100:103\n\n"
      "Exit codes: 0 done, 1 a file could not be written, 2 no run directory with traces,\n"
      "or a mistake in the command line.");
  return command;
}

int TimelineCommand(const TimelineArguments& arguments) {
  if (!arguments.svg_path.empty() && !arguments.perfetto_path.empty() &&
      SameFile(arguments.svg_path, arguments.perfetto_path)) {
    return Fail(absl::InvalidArgumentError(absl::StrCat("--svg and --perfetto name the same file ",
                                                        arguments.svg_path, "; give two")),
                kExitUsage);
  }
  const absl::StatusOr<RunTrace> run = LoadRunTrace(arguments.run_dir);
  if (!run.ok()) return Fail(run.status(), kExitUsage);
  StepWindow window = InterestingSteps(*run);
  if (!arguments.steps.empty()) {
    const absl::StatusOr<StepWindow> asked = ParseSteps(*run, arguments.steps);
    if (!asked.ok()) return Fail(asked.status(), kExitUsage);
    window = *asked;
  }
  if (arguments.svg_path.empty() && arguments.perfetto_path.empty())
    std::cout << TimelineText(*run, window);
  if (!arguments.svg_path.empty()) {
    if (const int code = DrawSvg(*run, window, arguments.svg_path); code != kExitFinished)
      return code;
  }
  if (!arguments.perfetto_path.empty()) {
    const bool all = arguments.steps.empty();
    const int code = DrawPerfetto(*run, all ? run->first_step : window.first_step,
                                  all ? run->end_step : window.end_step, arguments.perfetto_path);
    if (code != kExitFinished) return code;
  }
  return kExitFinished;
}

}  // namespace smartpipe
