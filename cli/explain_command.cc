#include "cli/explain_command.h"

#include <iostream>
#include <string>

#include "CLI/CLI.hpp"
#include "cli/commands.h"
#include "cli/complaint.h"
#include "cli/explain.h"
#include "cli/run_trace.h"
#include "services/base/status_macros.h"

namespace smartpipe {

namespace {

absl::StatusOr<std::string> ExplainText(const std::string& run_dir, bool json) {
  SP_ASSIGN_OR_RETURN(const RunTrace run, LoadRunTrace(run_dir));
  SP_ASSIGN_OR_RETURN(const Explanation explanation, Explain(run));
  return json ? ExplanationJson(run, explanation) : ExplanationText(run, explanation);
}

}  // namespace

CLI::App* AddExplainCommand(CLI::App& app, ExplainArguments& arguments) {
  CLI::App* command = app.add_subcommand("explain", "say where the time of a run went");
  command->add_option("RUN", arguments.run_dir, "run directory, with traces (worker.trace)")
      ->required()
      ->type_name("");
  command->add_flag("--json", arguments.json, "every number, for scripts");
  command->footer(
      "Works while the run goes on, and after it failed. docs/guide.md explains the columns.\n\n"
      "Example: smartpipe explain runs/fixed\n\n"
      "Exit codes: 0 done, 2 no run directory with traces.");
  return command;
}

int ExplainCommand(const ExplainArguments& arguments) {
  const absl::StatusOr<std::string> text = ExplainText(arguments.run_dir, arguments.json);
  if (!text.ok()) return Fail(text.status(), kExitUsage);
  std::cout << *text;
  return kExitFinished;
}

}  // namespace smartpipe
