#include "cli/commands.h"

#include <cstdio>
#include <iostream>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "cli/complaint.h"
#include "cli/display.h"
#include "cli/files.h"
#include "cli/preflight.h"
#include "cli/render.h"
#include "cli/run_result.h"
#include "cli/train.h"
#include "services/base/nearest_name.h"
#include "services/rpc/quiet.h"

namespace smartpipe {
namespace {

// A config's problems carry the file's name in each line.
int FailConfig(const absl::Status& status) {
  std::cerr << status.message()
            << "\n`smartpipe config keys` explains every key. Nothing was started." << std::endl;
  return kExitUsage;
}

int FailRun(const absl::Status& status) {
  return Fail(status, absl::IsCancelled(status) ? kExitInterrupted : kExitFailed);
}

// Whether --summary can be written, before a run costs time.
absl::Status CheckSummary(const TrainArguments& arguments) {
  if (arguments.summary_path.empty()) return absl::OkStatus();
  const absl::Status writable = CheckWritable(arguments.summary_path);
  return absl::Status(writable.code(), absl::StrCat("--summary: ", writable.message()));
}

std::string Headline(const CheckedConfig& checked) {
  const RunConfig& config = checked.config;
  std::string text = absl::StrCat(
      config.model.name, " on ", config.data.name, ", ", config.pipeline.stages,
      config.pipeline.stages == 1 ? " stage" : " stages", " (", config.pipeline.schedule,
      "), policy ", config.freeze.policy, ", seed ", config.train.seed);
  if (checked.shape) {
    absl::StrAppend(&text, "; ", checked.shape->num_steps, " steps, ",
                    checked.shape->steps_per_epoch, " an epoch, decisions every ",
                    checked.shape->interval_steps);
  }
  return text;
}

// One run with its own directory; its headline first.
absl::StatusOr<RunResult> RunOnce(const CheckedConfig& checked, const std::string& run_dir,
                                  Display& display) {
  display.Print(absl::StrCat("Run ", run_dir, ":\n", Wrap(Headline(checked), 79, 2)));
  return TrainLocally(checked, run_dir, display);
}

}  // namespace

int TrainCommand(const TrainArguments& arguments) {
  QuietGrpcLog();
  const absl::StatusOr<CheckedConfig> checked = LoadConfig(arguments.config_path, arguments.sets);
  if (!checked.ok()) return FailConfig(checked.status());
  if (const absl::Status status = CheckSummary(arguments); !status.ok())
    return Fail(status, kExitUsage);
  const absl::StatusOr<std::string> run_dir =
      MakeRunDir(arguments.run_dir, checked->config.freeze.policy, checked->config, absl::Now());
  if (!run_dir.ok()) return Fail(run_dir.status(), kExitUsage);
  Display display = Display::ForStdout();
  const absl::StatusOr<RunResult> result = RunOnce(*checked, *run_dir, display);
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
  std::vector<CheckedConfig> configs;
  for (const char* policy : {"full", "smartpipe"}) {
    std::vector<std::string> sets = arguments.sets;
    sets.push_back(absl::StrCat("freeze.policy=", policy));
    absl::StatusOr<CheckedConfig> checked = LoadConfig(arguments.config_path, sets);
    if (!checked.ok()) return FailConfig(checked.status());
    configs.push_back(*std::move(checked));
  }
  if (const absl::Status status = CheckSummary(arguments); !status.ok())
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
    const absl::StatusOr<RunResult> result = RunOnce(configs[i], run_dirs[i], display);
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

int UnknownCommand(const std::string& name) {
  const std::string nearest =
      NearestName(name, {"train", "demo", "timeline", "explain", "config", "simulate", "plan"});
  return Fail(
      absl::InvalidArgumentError(absl::StrCat("unknown command \"", name, "\": did you mean \"",
                                              nearest, "\"? `smartpipe --help` lists all")),
      kExitUsage);
}

int ConfigCheckCommand(const std::string& path, const std::vector<std::string>& sets) {
  const absl::StatusOr<CheckedConfig> checked = LoadConfig(path, sets);
  if (!checked.ok()) return FailConfig(checked.status());
  std::cout << path << " is good.\n" << Wrap(Headline(*checked), 79, 2);
  return kExitFinished;
}

int ConfigShowCommand(const std::string& path, const std::vector<std::string>& sets) {
  const absl::StatusOr<CheckedConfig> checked = LoadConfig(path, sets);
  if (!checked.ok()) return FailConfig(checked.status());
  std::cout << ToToml(checked->config);
  return kExitFinished;
}

int ConfigKeysCommand() {
  std::string table;
  for (const ConfigKey& key : ConfigKeys()) {
    const size_t dot = key.key.find('.');
    const std::string in_table = dot == std::string::npos ? "" : key.key.substr(0, dot);
    if (in_table != table) std::cout << "\n";
    table = in_table;
    std::cout << key.key << " = " << key.default_value << "\n"
              << Wrap(absl::StrCat(key.doc, "."), 79, 4)
              << Wrap(key.range.empty() ? key.type : absl::StrCat(key.type, ": ", key.range), 79,
                      4);
  }
  return kExitFinished;
}

}  // namespace smartpipe
