#include "cli/view_commands.h"

#include <unistd.h>

#include <functional>
#include <iostream>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "cli/commands.h"
#include "cli/complaint.h"
#include "cli/display.h"
#include "google/protobuf/util/json_util.h"
#include "services/base/status_macros.h"

namespace smartpipe {
namespace {

using Stub = v1::FreezeService::StubInterface;

constexpr char kExitCodes[] =
    "Exit codes: 0 done, 1 the service refused, 2 mistake in the command line,\n"
    "3 the run cannot be reached.";

CLI::App* AddCommand(CLI::App& app, const std::string& name, const std::string& what,
                     const std::string& footer, ViewArguments& arguments) {
  CLI::App* command = app.add_subcommand(name, what);
  AddRunTarget(*command, arguments.target);
  command->add_flag("--json", arguments.json, "print one JSON object");
  command->footer(footer + "\n\n" + kExitCodes);
  return command;
}

/// All verdicts, page by page.
absl::StatusOr<std::vector<v1::Verdict>> FetchVerdicts(Stub& stub, bool changes_only,
                                                       std::string page_token) {
  std::vector<v1::Verdict> verdicts;
  do {
    v1::ListVerdictsRequest request;
    request.set_page_size(1000);
    request.set_page_token(page_token);
    request.set_changes_only(changes_only);
    SP_ASSIGN_OR_RETURN(const v1::ListVerdictsResponse response,
                        CallRun(stub, &Stub::ListVerdicts, request));
    verdicts.insert(verdicts.end(), response.verdicts().begin(), response.verdicts().end());
    page_token = response.next_page_token();
  } while (!page_token.empty());
  return verdicts;
}

/// Runs `view`, which prints, and says what went wrong.
int ShowRun(const RunTarget& target, const std::function<absl::Status(Stub&)>& view) {
  return RunCommand(target, [&view](Stub& stub) {
    const absl::Status status = view(stub);
    if (status.ok()) return kExitFinished;
    return Fail(status, IsUnreachable(status) ? kExitUnreachable : kExitFailed);
  });
}

}  // namespace

std::string MessageJson(const google::protobuf::Message& message) {
  google::protobuf::util::JsonPrintOptions options;
  options.add_whitespace = true;
  options.always_print_primitive_fields = true;
  options.preserve_proto_field_names = true;
  std::string json;
  if (!google::protobuf::util::MessageToJsonString(message, &json, options).ok()) return "{}\n";
  return json;
}

CLI::App* AddStatusCommand(CLI::App& app, ViewArguments& arguments) {
  return AddCommand(app, "status", "say what a run is doing",
                    "A worker's idle share is the part of a step in which it waits for others.\n\n"
                    "Example: smartpipe status runs/fixed",
                    arguments);
}

CLI::App* AddLayersCommand(CLI::App& app, ViewArguments& arguments) {
  return AddCommand(app, "layers", "list a run's layers: who holds them, what is frozen and why",
                    "Example: smartpipe layers runs/fixed", arguments);
}

CLI::App* AddDecisionsCommand(CLI::App& app, ViewArguments& arguments) {
  CLI::App* command = AddCommand(app, "decisions", "list the verdicts of a run with their reasons",
                                 "Example: smartpipe decisions runs/fixed --changes", arguments);
  command->add_flag("--changes", arguments.changes_only, "only those that bring a new plan");
  return command;
}

absl::StatusOr<RunView> FetchRunView(Stub& stub) {
  RunView view;
  SP_ASSIGN_OR_RETURN(v1::GetRunResponse run, CallRun(stub, &Stub::GetRun, v1::GetRunRequest()));
  view.run = std::move(*run.mutable_run());
  SP_ASSIGN_OR_RETURN(const v1::ListWorkersResponse workers,
                      CallRun(stub, &Stub::ListWorkers, v1::ListWorkersRequest()));
  view.workers.assign(workers.workers().begin(), workers.workers().end());
  SP_ASSIGN_OR_RETURN(const v1::ListOrdersResponse orders,
                      CallRun(stub, &Stub::ListOrders, v1::ListOrdersRequest()));
  view.orders.assign(orders.orders().begin(), orders.orders().end());
  if (view.run.num_verdicts() == 0) return view;
  SP_ASSIGN_OR_RETURN(view.plan, CallRun(stub, &Stub::GetPlan, v1::GetPlanRequest()));
  SP_ASSIGN_OR_RETURN(view.verdicts,
                      FetchVerdicts(stub, false, std::to_string(view.run.num_verdicts() - 1)));
  return view;
}

int StatusCommand(const ViewArguments& arguments) {
  return ShowRun(arguments.target, [&](Stub& stub) -> absl::Status {
    if (arguments.json) {
      SP_ASSIGN_OR_RETURN(const v1::GetRunResponse run,
                          CallRun(stub, &Stub::GetRun, v1::GetRunRequest()));
      std::cout << MessageJson(run.run());
      return absl::OkStatus();
    }
    SP_ASSIGN_OR_RETURN(const RunView view, FetchRunView(stub));
    std::cout << StatusText(view, TerminalWidth(STDOUT_FILENO));
    return absl::OkStatus();
  });
}

int LayersCommand(const ViewArguments& arguments) {
  return ShowRun(arguments.target, [&](Stub& stub) -> absl::Status {
    SP_ASSIGN_OR_RETURN(const v1::ListLayersResponse response,
                        CallRun(stub, &Stub::ListLayers, v1::ListLayersRequest()));
    if (arguments.json) {
      std::cout << MessageJson(response);
    } else {
      std::cout << LayersText({response.layers().begin(), response.layers().end()},
                              TerminalWidth(STDOUT_FILENO));
    }
    return absl::OkStatus();
  });
}

int DecisionsCommand(const ViewArguments& arguments) {
  return ShowRun(arguments.target, [&](Stub& stub) -> absl::Status {
    SP_ASSIGN_OR_RETURN(const std::vector<v1::Verdict> verdicts,
                        FetchVerdicts(stub, arguments.changes_only, ""));
    if (arguments.json) {
      v1::ListVerdictsResponse all;
      all.mutable_verdicts()->Assign(verdicts.begin(), verdicts.end());
      std::cout << MessageJson(all);
    } else {
      std::cout << DecisionsText(verdicts, TerminalWidth(STDOUT_FILENO));
    }
    return absl::OkStatus();
  });
}

}  // namespace smartpipe
