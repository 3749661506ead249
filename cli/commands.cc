#include "cli/commands.h"

#include <filesystem>
#include <iostream>
#include <system_error>
#include <thread>

#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "cli/complaint.h"
#include "cli/config_notes.h"
#include "cli/connection.h"
#include "cli/display.h"
#include "cli/files.h"
#include "cli/preflight.h"
#include "cli/render.h"
#include "cli/resume.h"
#include "cli/run_result.h"
#include "cli/train.h"
#include "services/base/limits.h"
#include "services/base/status_macros.h"
#include "services/rpc/quiet.h"

namespace smartpipe {
namespace {

// A config's problems carry the file's name in each line. `what_not` ends the message: that nothing
// was done.
int FailConfig(const absl::Status& status, absl::string_view what_not = "") {
  const bool about_keys = absl::IsInvalidArgument(status);
  std::string text = absl::StrCat(about_keys ? "" : "smartpipe: ", status.message());
  if (about_keys || !what_not.empty()) absl::StrAppend(&text, "\n");
  if (about_keys) absl::StrAppend(&text, "`smartpipe config keys` explains every key.");
  if (!what_not.empty()) absl::StrAppend(&text, about_keys ? " " : "", what_not);
  Complain(text);
  return kExitUsage;
}

constexpr char kNothingStarted[] = "Nothing was started.";

int FailRun(const absl::Status& status) {
  return Fail(status, absl::IsCancelled(status) ? kExitInterrupted : kExitFailed);
}

// Whether --summary can be written, before a run costs time.
absl::Status CheckSummary(const TrainArguments& arguments) {
  if (arguments.summary_path.empty()) return absl::OkStatus();
  std::error_code ignored;
  if (std::filesystem::equivalent(arguments.summary_path, arguments.config_path, ignored)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--summary: ", arguments.summary_path,
        " is the config itself, which it would overwrite; give another file. ", kNothingStarted));
  }
  const absl::Status writable = CheckWritable(arguments.summary_path);
  return absl::Status(writable.code(), absl::StrCat("--summary: ", writable.message()));
}

absl::Status CheckTls(const RunConfig& config) {
  const absl::Status status = CheckTlsFiles(TlsFilesOf(config), absl::Now());
  return status.ok()
             ? status
             : absl::Status(status.code(), absl::StrCat(status.message(), ". ", kNothingStarted));
}

std::string NotesText(const CheckedConfig& checked) {
  std::string text;
  for (const std::string& note : ConfigNotes(checked, std::thread::hardware_concurrency()))
    absl::StrAppend(&text, Wrap("Note: " + note + ".", 79, 2));
  return text;
}

// One run with its own directory; its headline first.
absl::StatusOr<RunResult> RunOnce(const CheckedConfig& checked, const std::string& run_dir,
                                  const std::string& resume, Display& display) {
  display.Print(
      absl::StrCat("Run ", run_dir, ":\n", Wrap(Headline(checked), 79, 2), NotesText(checked)));
  return TrainLocally(checked, run_dir, resume, display);
}

// Where the run goes on; "" = it is a new one, or not to be resumed.
absl::StatusOr<std::string> FindResume(const TrainArguments& arguments, const RunConfig& config) {
  SP_RETURN_IF_ERROR(CheckResumeWord(arguments.resume));
  if (arguments.resume == kResumeNever) return std::string();
  if (arguments.run_dir.empty()) {
    return absl::InvalidArgumentError("--resume needs --run-dir: which run is to go on?");
  }
  if (arguments.resume == kResumeAuto && !HoldsRun(arguments.run_dir)) return std::string();
  SP_RETURN_IF_ERROR(PrepareResume(arguments.run_dir, config, arguments.resume));
  return arguments.resume;
}

// A run that a script starts again and again until it is done.
int TellFinished(const TrainArguments& arguments) {
  const std::string path = arguments.run_dir + "/summary.json";
  std::cout << "The run in " << arguments.run_dir << " has finished before; its results are in "
            << path << ".\n";
  if (arguments.summary_path.empty()) return kExitFinished;
  const absl::StatusOr<std::string> summary = ReadSmallFile(path, limits::kConfigBytesMax * 64);
  absl::Status written = summary.status();
  if (written.ok()) written = WriteFileAtomically(arguments.summary_path, *summary);
  return written.ok() ? kExitFinished : FailRun(written);
}

}  // namespace

int TrainCommand(const TrainArguments& arguments) {
  QuietGrpcLog();
  const absl::StatusOr<CheckedConfig> checked = LoadConfig(arguments.config_path, arguments.sets);
  if (!checked.ok()) return FailConfig(checked.status(), kNothingStarted);
  if (const absl::Status status = CheckSummary(arguments); !status.ok())
    return Fail(status, kExitUsage);
  if (const absl::Status status = CheckTls(checked->config); !status.ok())
    return Fail(status, kExitUsage);
  if (arguments.resume == kResumeAuto && HoldsFinishedRun(arguments.run_dir)) {
    const absl::Status same = CheckSameRun(arguments.run_dir, checked->config);
    return same.ok() ? TellFinished(arguments) : Fail(same, kExitUsage);
  }
  const absl::StatusOr<std::string> resume = FindResume(arguments, checked->config);
  if (!resume.ok()) return Fail(resume.status(), kExitUsage);
  absl::StatusOr<std::string> run_dir = arguments.run_dir;
  if (resume->empty()) {
    run_dir =
        MakeRunDir(arguments.run_dir, checked->config.freeze.policy, checked->config, absl::Now());
  }
  if (!run_dir.ok()) return Fail(run_dir.status(), kExitUsage);
  Display display = Display::ForStdout();
  const absl::StatusOr<RunResult> result = RunOnce(*checked, *run_dir, *resume, display);
  if (!result.ok()) return FailRun(result.status());
  if (!arguments.summary_path.empty()) {
    const absl::Status written = WriteFileAtomically(arguments.summary_path, SummaryJson(*result));
    if (!written.ok()) return FailRun(written);
  }
  display.Print(absl::StrCat("\nFinished ", result->steps, " steps.\n", ResultTable(*result)));
  return kExitFinished;
}

int DemoCommand(const TrainArguments& arguments) {
  QuietGrpcLog();
  Display display = Display::ForStdout();
  // Both configs and folders first: a mistake should not cost the time of the first run.
  const absl::StatusOr<CheckedConfig> frozen = LoadConfig(arguments.config_path, arguments.sets);
  if (!frozen.ok()) return FailConfig(frozen.status(), kNothingStarted);
  if (frozen->config.freeze.policy == "full") {
    return Fail(absl::InvalidArgumentError(
                    "demo compares freeze.policy = full with the config's own policy, which is "
                    "full, too; give another, like --set freeze.policy=smartpipe, or use "
                    "`smartpipe train` for a single run. Nothing was started."),
                kExitUsage);
  }
  std::vector<std::string> full_sets = arguments.sets;
  full_sets.push_back("freeze.policy=full");
  full_sets.push_back("freeze.schedule=[]");
  const absl::StatusOr<CheckedConfig> full = LoadConfig(arguments.config_path, full_sets);
  if (!full.ok()) return FailConfig(full.status(), kNothingStarted);
  const std::vector<CheckedConfig> configs = {*full, *frozen};
  if (const absl::Status status = CheckSummary(arguments); !status.ok())
    return Fail(status, kExitUsage);
  if (const absl::Status status = CheckTls(full->config); !status.ok())
    return Fail(status, kExitUsage);
  const absl::Time now = absl::Now();
  const std::string base =
      arguments.run_dir.empty()
          ? absl::StrCat("runs/", absl::FormatTime("%Y%m%d-%H%M%S", now, absl::UTCTimeZone()),
                         "-demo")
          : arguments.run_dir;
  std::vector<std::string> run_dirs;
  for (const CheckedConfig& checked : configs) {
    const std::string& policy = checked.config.freeze.policy;
    const absl::StatusOr<std::string> run_dir =
        MakeRunDir(absl::StrCat(base, "/", policy), policy, checked.config, now);
    if (!run_dir.ok()) return Fail(run_dir.status(), kExitUsage);
    run_dirs.push_back(*run_dir);
  }
  std::vector<RunResult> results;
  for (size_t i = 0; i < configs.size(); ++i) {
    display.Print(absl::StrCat(i == 0 ? "" : "\n", "Run ", i + 1, " of ", configs.size(), ": ",
                               i == 0 ? "nothing is frozen" : "the same with freezing, same seed"));
    const absl::StatusOr<RunResult> result = RunOnce(configs[i], run_dirs[i], "", display);
    if (!result.ok()) return FailRun(result.status());
    display.Print(absl::StrCat("\n", ResultTable(*result)));
    results.push_back(*result);
  }
  display.Print(
      absl::StrCat("\nWithout and with freezing:\n\n", ComparisonTable(results[0], results[1])));
  const std::string comparison = ComparisonJson(results[0], results[1]);
  for (const std::string& path : {base + "/comparison.json", arguments.summary_path}) {
    if (path.empty()) continue;
    if (const absl::Status written = WriteFileAtomically(path, comparison); !written.ok())
      return FailRun(written);
  }
  return kExitFinished;
}

int ConfigCheckCommand(const std::string& path, const std::vector<std::string>& sets) {
  const absl::StatusOr<CheckedConfig> checked = LoadConfig(path, sets);
  if (!checked.ok()) return FailConfig(checked.status());
  std::cout << path << " is good.\n" << Wrap(Headline(*checked), 79, 2) << NotesText(*checked);
  return kExitFinished;
}

int ConfigShowCommand(const std::string& path, const std::vector<std::string>& sets) {
  const absl::StatusOr<CheckedConfig> checked = LoadConfig(path, sets);
  if (!checked.ok()) return FailConfig(checked.status());
  std::cout << ToToml(checked->config);
  return kExitFinished;
}

int ConfigKeysCommand(const std::string& prefix) {
  std::string table;
  bool any = false;
  for (const ConfigKey& key : ConfigKeys()) {
    if (!absl::StartsWith(key.key, prefix)) continue;
    const size_t dot = key.key.find('.');
    const std::string in_table = dot == std::string::npos ? "" : key.key.substr(0, dot);
    if (any && in_table != table) std::cout << "\n";
    any = true;
    table = in_table;
    std::cout << key.key << " = " << key.default_value << "\n"
              << Wrap(absl::StrCat(key.doc, "."), 79, 4)
              << Wrap(key.range.empty() ? key.type : absl::StrCat(key.type, ": ", key.range), 79,
                      4);
  }
  if (any) return kExitFinished;
  return Fail(absl::InvalidArgumentError(absl::StrCat("no key begins with \"", prefix.substr(0, 60),
                                                      "\"; `smartpipe config keys` lists all")),
              kExitUsage);
}

}  // namespace smartpipe
