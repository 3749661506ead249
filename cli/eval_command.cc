#include "cli/eval_command.h"

#include <cmath>
#include <filesystem>
#include <iostream>
#include <system_error>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "cli/commands.h"
#include "cli/complaint.h"
#include "cli/option_check.h"
#include "cli/preflight.h"
#include "nlohmann/json.hpp"
#include "services/base/limits.h"
#include "services/base/status_macros.h"

namespace smartpipe {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

// What the worker is to evaluate, as its options.
absl::StatusOr<std::vector<std::string>> SourceWords(const EvalArguments& arguments) {
  SP_RETURN_IF_ERROR(CheckOption("--step", arguments.step.value_or(0), 0, limits::kStepsMax));
  std::error_code error;
  const fs::file_status status = fs::status(arguments.source, error);
  if (fs::is_directory(status)) {
    SP_RETURN_IF_ERROR(CheckRunDir(arguments.source));
    std::vector<std::string> words = {"--run=" + arguments.source};
    if (arguments.step) words.push_back(absl::StrCat("--step=", *arguments.step));
    return words;
  }
  if (!fs::is_regular_file(status)) {
    return absl::NotFoundError(absl::StrCat(
        arguments.source, fs::exists(status) ? " is a pipe or a device" : " is not there",
        "; give a run directory or a safetensors file"));
  }
  if (arguments.step) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--step is for run directories; ", arguments.source, " is a file and holds one state"));
  }
  if (arguments.config_path.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(arguments.source,
                     " does not say its model and dataset; give the config of "
                     "its training by --config FILE.toml"));
  }
  return std::vector{"--weights=" + arguments.source};
}

// The config's problems carry the file's name in each line.
int FailConfig(const absl::Status& status) {
  if (!absl::IsInvalidArgument(status)) return Fail(status, kExitUsage);
  Complain(absl::StrCat(status.message(), "\n`smartpipe config keys` explains every key."));
  return kExitUsage;
}

}  // namespace

CLI::App* AddEvalCommand(CLI::App& app, EvalArguments& arguments) {
  CLI::App* command = app.add_subcommand("eval", "evaluate weights on the test set");
  command->add_option("RUN|FILE", arguments.source, "run directory or safetensors file")
      ->required()
      ->type_name("");
  command
      ->add_option("--config", arguments.config_path,
                   "TOML file with model and dataset [RUN/config.toml]; needed for FILE")
      ->type_name("FILE.toml");
  command->add_option("--step", arguments.step, "RUN's checkpoint [the newest complete one]")
      ->type_name("N");
  command->add_flag("--json", arguments.json, "print one JSON object");
  command->footer(
      "Works while the run goes on, and after it failed. The numbers are those of the training's\n"
      "own evaluation of the same weights. `smartpipe checkpoints RUN` lists the steps.\n\n"
      "Examples:\n"
      "  smartpipe eval runs/fixed\n"
      "  smartpipe eval runs/fixed/model.safetensors --config runs/fixed/config.toml --json\n\n"
      "Exit codes: 0 done, 1 it failed, or there is no complete checkpoint yet, 2 no such run, "
      "file\n"
      "or step, a mistake in the config, or weights of another model.");
  return command;
}

std::string EvalText(const EvalArguments& arguments, const WeightsAnswer& answer) {
  return absl::StrCat(
      arguments.source, answer.step ? absl::StrCat(" (step ", *answer.step, ")") : "",
      absl::StrFormat(": test accuracy %.2f %%, test loss %.3f, %d samples\nweights_sha256 %s\n",
                      answer.test_accuracy * 100, answer.test_loss, answer.num_samples,
                      answer.weights_sha256));
}

std::string EvalJson(const WeightsAnswer& answer) {
  const auto real = [](double value) { return std::isfinite(value) ? Json(value) : Json(nullptr); };
  const Json object = {{"step", answer.step ? Json(*answer.step) : Json(nullptr)},
                       {"test_accuracy", real(answer.test_accuracy)},
                       {"test_loss", real(answer.test_loss)},
                       {"num_samples", answer.num_samples},
                       {"weights_sha256", answer.weights_sha256}};
  return object.dump() + "\n";
}

int EvalCommand(const EvalArguments& arguments) {
  absl::StatusOr<std::vector<std::string>> words = SourceWords(arguments);
  if (!words.ok()) return Fail(words.status(), kExitUsage);
  const std::string config =
      arguments.config_path.empty() ? arguments.source + "/config.toml" : arguments.config_path;
  // The weights that the training started from need not be there any more.
  const absl::Status good =
      LoadConfig(config, {"model.weights=''", "model.allow_partial=false"}).status();
  if (!good.ok()) return FailConfig(good);
  words->insert(words->begin(), {"eval", "--config=" + config});
  const absl::StatusOr<WeightsAnswer> answer = RunWeightsWorker(*words);
  if (!answer.ok()) return Fail(answer.status(), WeightsExitCode(answer.status()));
  std::cout << (arguments.json ? EvalJson(*answer) : EvalText(arguments, *answer));
  return kExitFinished;
}

}  // namespace smartpipe
