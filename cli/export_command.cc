#include "cli/export_command.h"

#include <iostream>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "cli/commands.h"
#include "cli/complaint.h"
#include "cli/option_check.h"
#include "cli/preflight.h"
#include "nlohmann/json.hpp"
#include "services/base/limits.h"
#include "services/base/status_macros.h"

namespace smartpipe {
namespace {

absl::StatusOr<WeightsAnswer> Export(const ExportArguments& arguments) {
  SP_RETURN_IF_ERROR(CheckOption("--step", arguments.step.value_or(0), 0, limits::kStepsMax));
  SP_RETURN_IF_ERROR(CheckRunDir(arguments.run_dir));
  if (const absl::Status writable = CheckWritable(arguments.output_path); !writable.ok())
    return Annotate(writable, "-o");
  std::vector<std::string> words = {"export", "--run=" + arguments.run_dir,
                                    "--output=" + arguments.output_path};
  if (arguments.step) words.push_back(absl::StrCat("--step=", *arguments.step));
  return RunWeightsWorker(words);
}

}  // namespace

CLI::App* AddExportCommand(CLI::App& app, ExportArguments& arguments) {
  CLI::App* command = app.add_subcommand("export", "write a checkpoint's weights to a file");
  command->add_option("RUN", arguments.run_dir, "run directory")->required()->type_name("");
  command->add_option("-o,--output", arguments.output_path, "safetensors file to write")
      ->required()
      ->type_name("FILE");
  command->add_option("--step", arguments.step, "of this checkpoint [the newest complete one]")
      ->type_name("N");
  command->add_flag("--json", arguments.json, "print one JSON object");
  command->footer(
      "Works while the run goes on, and after it failed. The file has the form of\n"
      "RUN/model.safetensors, which a finished run has of its last step.\n"
      "`smartpipe checkpoints RUN` lists the steps.\n\n"
      "Example: smartpipe export runs/fixed --step 1000 -o step1000.safetensors\n\n"
      "Exit codes: 0 done, 1 it failed, or there is no complete checkpoint yet, 2 no such run or\n"
      "step, or the file cannot be written.");
  return command;
}

std::string ExportText(const ExportArguments& arguments, const WeightsAnswer& answer) {
  return absl::StrCat(arguments.output_path, ": the weights of ", arguments.run_dir, " after step ",
                      answer.step.value_or(0), ", ", answer.num_tensors, " tensors, ",
                      answer.tensor_bytes, " bytes\nweights_sha256 ", answer.weights_sha256, "\n");
}

std::string ExportJson(const ExportArguments& arguments, const WeightsAnswer& answer) {
  const nlohmann::ordered_json object = {{"step", answer.step.value_or(0)},
                                         {"output", arguments.output_path},
                                         {"num_tensors", answer.num_tensors},
                                         {"tensor_bytes", answer.tensor_bytes},
                                         {"weights_sha256", answer.weights_sha256}};
  return object.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

int ExportCommand(const ExportArguments& arguments) {
  const absl::StatusOr<WeightsAnswer> answer = Export(arguments);
  if (!answer.ok()) return Fail(answer.status(), WeightsExitCode(answer.status()));
  std::cout << (arguments.json ? ExportJson(arguments, *answer) : ExportText(arguments, *answer));
  return kExitFinished;
}

}  // namespace smartpipe
