#include "cli/ctl_command.h"

#include <unistd.h>

#include <iostream>
#include <utility>

#include "CLI/CLI.hpp"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "cli/commands.h"
#include "cli/complaint.h"
#include "cli/display.h"
#include "cli/run_views.h"
#include "cli/view_commands.h"
#include "services/base/error_reason.h"
#include "services/base/status_macros.h"

namespace smartpipe {
namespace {

using Stub = v1::FreezeService::StubInterface;

constexpr char kFooter[] =
    R"(Each order is carried out at a boundary; the answer says at which step. --dry-run
says what would happen and changes nothing.

Examples:
  smartpipe ctl freeze runs/a 3 --reason "the first layers look done"
  smartpipe ctl rebalance runs/a --dry-run
  smartpipe ctl pause runs/a
  smartpipe ctl drain runs/a w1
  smartpipe ctl policy runs/a smartpipe --set tau=0.2
  smartpipe ctl stop runs/a

Exit codes: 0 accepted, 1 refused (the sentence says why, and in brackets is the
reason for programs), 2 mistake in the command line, 3 the run cannot be reached.)";

CLI::App* AddOrder(CLI::App& ctl, const std::string& name, const std::string& what,
                   CtlArguments& arguments, bool has_step = true) {
  CLI::App* order = ctl.add_subcommand(name, what);
  AddRunTarget(*order, arguments.target);
  order->add_option("--reason", arguments.reason, "why, for the log")->type_name("TEXT");
  order
      ->add_option("--request-id", arguments.request_id,
                   "who repeats it means the same order [the service gives one]")
      ->type_name("ID");
  if (has_step) {
    order
        ->add_option("--at-step", arguments.step,
                     "step of the boundary at which it takes effect [the next that can be]")
        ->type_name("STEP");
  }
  order->add_flag("--dry-run", arguments.dry_run, "say what would happen, and change nothing");
  order->add_flag("--json", arguments.json, "print one JSON object");
  return order;
}

/// What all requests have in common.
template <typename Request>
Request MakeRequest(const CtlArguments& arguments) {
  Request request;
  request.set_request_id(arguments.request_id);
  request.set_reason(arguments.reason);
  request.set_validate_only(arguments.dry_run);
  if constexpr (requires { request.set_step(0); }) {
    if (arguments.step.has_value()) request.set_step(*arguments.step);
  }
  return request;
}

absl::Status SetOfPolicy(const std::string& word, v1::SetPolicyRequest& request) {
  const std::pair<std::string, std::string> entry = absl::StrSplit(word, absl::MaxSplits('=', 1));
  const auto& [key, value] = entry;
  double number = 0;
  int32_t whole = 0;
  if (key == "tau" && absl::SimpleAtod(value, &number)) {
    request.set_tau(number);
  } else if (key == "lambda_max" && absl::SimpleAtod(value, &number)) {
    request.set_lambda_max(number);
  } else if (key == "warmup_intervals" && absl::SimpleAtoi(value, &whole)) {
    request.set_warmup_intervals(whole);
  } else if (key == "hits" && absl::SimpleAtoi(value, &whole)) {
    request.set_hits(whole);
  } else if (key == "min_trainable" && absl::SimpleAtoi(value, &whole)) {
    request.set_min_trainable(whole);
  } else if (key == "fixed_layers" && absl::SimpleAtoi(value, &whole)) {
    request.set_fixed_layers(whole);
  } else if (key == "schedule") {
    for (const absl::string_view entry_text : absl::StrSplit(value, ',', absl::SkipEmpty())) {
      const std::pair<absl::string_view, absl::string_view> parts = absl::StrSplit(entry_text, ':');
      int64_t step = 0;
      if (!absl::SimpleAtoi(parts.first, &step) || !absl::SimpleAtoi(parts.second, &whole)) {
        return absl::InvalidArgumentError(
            absl::StrCat("--set schedule takes STEP:FRONTIER,STEP:FRONTIER, not \"", value, "\""));
      }
      v1::ScheduleEntry& added = *request.add_schedule();
      added.set_step(step);
      added.set_frontier(whole);
    }
  } else {
    return absl::InvalidArgumentError(absl::StrCat(
        "--set ", word,
        ": give a number for tau, lambda_max, warmup_intervals, hits, min_trainable or "
        "fixed_layers, or schedule=STEP:FRONTIER,..."));
  }
  return absl::OkStatus();
}

absl::StatusOr<v1::OrderResult> Give(const std::string& name, const CtlArguments& arguments,
                                     Stub& stub) {
  const auto call = [&stub](auto method, const auto& request) -> absl::StatusOr<v1::OrderResult> {
    SP_ASSIGN_OR_RETURN(auto response, CallRun(stub, method, request));
    return response.result();
  };
  if (name == "freeze") {
    auto request = MakeRequest<v1::FreezeLayersRequest>(arguments);
    request.set_frontier(arguments.frontier);
    return call(&Stub::FreezeLayers, request);
  }
  if (name == "unfreeze") {
    auto request = MakeRequest<v1::UnfreezeLayersRequest>(arguments);
    request.set_frontier(arguments.frontier);
    return call(&Stub::UnfreezeLayers, request);
  }
  if (name == "rebalance") {
    auto request = MakeRequest<v1::RebalanceRequest>(arguments);
    request.mutable_cuts()->Assign(arguments.cuts.begin(), arguments.cuts.end());
    return call(&Stub::Rebalance, request);
  }
  if (name == "policy") {
    auto request = MakeRequest<v1::SetPolicyRequest>(arguments);
    if (!arguments.policy.empty()) request.set_policy(arguments.policy);
    for (const std::string& word : arguments.sets) SP_RETURN_IF_ERROR(SetOfPolicy(word, request));
    return call(&Stub::SetPolicy, request);
  }
  if (name == "pause") return call(&Stub::Pause, MakeRequest<v1::PauseRequest>(arguments));
  if (name == "resume") return call(&Stub::Resume, MakeRequest<v1::ResumeRequest>(arguments));
  if (name == "checkpoint")
    return call(&Stub::Checkpoint, MakeRequest<v1::CheckpointRequest>(arguments));
  if (name == "drain") {
    auto request = MakeRequest<v1::DrainWorkerRequest>(arguments);
    request.set_worker_id(arguments.worker_id);
    return call(&Stub::DrainWorker, request);
  }
  auto request = MakeRequest<v1::StopRequest>(arguments);
  request.set_at_once(arguments.at_once);
  return call(&Stub::Stop, request);
}

int FailOrder(const absl::Status& status) {
  if (IsUnreachable(status)) return Fail(status, kExitUnreachable);
  const std::optional<ErrorReason> reason = ReasonOf(status);
  if (!reason.has_value())
    return Fail(status, absl::IsInvalidArgument(status) ? kExitUsage : kExitFailed);
  return Fail(
      absl::Status(status.code(), absl::StrCat(status.message(), " [", reason->reason, "]")),
      kExitFailed);
}

}  // namespace

CLI::App* AddCtlCommand(CLI::App& app, CtlArguments& arguments) {
  CLI::App* ctl = app.add_subcommand("ctl", "give an order to a run");
  ctl->require_subcommand(1);
  ctl->footer(kFooter);
  for (const auto& [name, what] :
       {std::pair("freeze", "freeze the layers before FRONTIER"),
        std::pair("unfreeze", "let the layers from FRONTIER on train again")}) {
    AddOrder(*ctl, name, what, arguments)
        ->add_option("FRONTIER", arguments.frontier, "layer index")
        ->required()
        ->type_name("");
  }
  AddOrder(*ctl, "rebalance", "go over to other cuts, whether they pay or not", arguments)
      ->add_option("--cuts", arguments.cuts, "first layers of stages 1, 2, ... [the best found]")
      ->type_name("N,N,...")
      ->delimiter(',');
  CLI::App* policy = AddOrder(*ctl, "policy", "change the freezing policy", arguments);
  policy->add_option("POLICY", arguments.policy, "name as of freeze.policy [it stays]")
      ->type_name("");
  policy->add_option("--set", arguments.sets, "change a key of freeze; may be repeated")
      ->type_name("KEY=VALUE")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  AddOrder(*ctl, "pause", "let nobody pass the next boundary", arguments);
  AddOrder(*ctl, "resume", "end a pause", arguments, /*has_step=*/false);
  AddOrder(*ctl, "checkpoint", "take a checkpoint", arguments);
  AddOrder(*ctl, "drain", "let a worker leave; the others go on with its stages fewer", arguments)
      ->add_option("WORKER", arguments.worker_id, "worker id")
      ->required()
      ->type_name("");
  AddOrder(*ctl, "stop", "end the run behind a checkpoint", arguments)
      ->add_flag("--now", arguments.at_once, "at once, without a checkpoint");
  return ctl;
}

int CtlCommand(const CLI::App& ctl, const CtlArguments& arguments) {
  const std::string name = ctl.get_subcommands().front()->get_name();
  return RunCommand(arguments.target, [&](Stub& stub) {
    const absl::StatusOr<v1::OrderResult> result = Give(name, arguments, stub);
    if (!result.ok()) return FailOrder(result.status());
    if (arguments.json) {
      std::cout << MessageJson(*result);
    } else {
      std::cout << OrderText(*result, arguments.dry_run, TerminalWidth(STDOUT_FILENO));
    }
    return kExitFinished;
  });
}

}  // namespace smartpipe
