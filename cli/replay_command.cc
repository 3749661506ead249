#include "cli/replay_command.h"

#include <cstdint>
#include <iostream>
#include <memory>
#include <optional>
#include <variant>

#include "CLI/CLI.hpp"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "cli/commands.h"
#include "cli/complaint.h"
#include "cli/render.h"
#include "freeze_service/core/replay.h"
#include "freeze_service/store/decision_store.h"
#include "freeze_service/store/event_codec.h"
#include "nlohmann/json.hpp"
#include "services/base/status_macros.h"

namespace smartpipe {
namespace {

using Json = nlohmann::ordered_json;

struct Outcome {
  int64_t num_records = 0;    // replayed, all equal
  int64_t num_verdicts = 0;   // in them
  std::string state_message;  // behind them: "2 workers train 7 layers"
  std::optional<int64_t> different_record;
  std::string difference;  // of that record; empty = none
  std::string damage;      // of the log; empty = none
};

absl::StatusOr<Outcome> ReplayRun(const std::string& run_dir) {
  SP_ASSIGN_OR_RETURN(const RecordedRun run, OpenRecordedRun(run_dir));
  SP_ASSIGN_OR_RETURN(const CoordinatorOptions options, MakeCoordinatorOptions(run.settings));
  SP_ASSIGN_OR_RETURN(const std::unique_ptr<Coordinator> coordinator, Coordinator::Create(options));
  const std::optional<StoredSnapshot> snapshot = run.store->ReadSnapshot();
  Outcome outcome{.damage = run.damage};
  const absl::Status read = run.store->Read(0, [&](const EventRecord& record) -> absl::Status {
    outcome.difference = Replay(record, *coordinator);
    if (outcome.difference.empty() && snapshot.has_value() &&
        snapshot->num_records == record.sequence + 1 &&
        EncodeState(coordinator->Snapshot()) != EncodeState(snapshot->state)) {
      outcome.difference = "the snapshot behind it holds another state than the replay";
    }
    if (!outcome.difference.empty()) {
      outcome.different_record = record.sequence;
      return absl::AbortedError("enough seen");
    }
    ++outcome.num_records;
    for (const Decision& decision : record.decisions)
      outcome.num_verdicts += std::holds_alternative<Verdict>(decision);
    return absl::OkStatus();
  });
  if (!outcome.different_record.has_value()) SP_RETURN_IF_ERROR(read);
  outcome.state_message = coordinator->state_message();
  return outcome;
}

std::string OutcomeJson(const std::string& run_dir, const Outcome& outcome) {
  const auto text_or_null = [](const std::string& text) {
    return text.empty() ? Json(nullptr) : Json(text);
  };
  Json json = {{"run", run_dir},
               {"records", outcome.num_records},
               {"verdicts", outcome.num_verdicts},
               {"state", outcome.state_message},
               {"equal", outcome.difference.empty()},
               {"different_record", nullptr},
               {"difference", text_or_null(outcome.difference)},
               {"damage", text_or_null(outcome.damage)}};
  if (outcome.different_record.has_value()) json["different_record"] = *outcome.different_record;
  return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::string OutcomeText(const std::string& run_dir, const Outcome& outcome) {
  std::string text =
      Wrap(absl::StrCat(run_dir, ": ", outcome.num_records, " events replayed, the same ",
                        outcome.num_verdicts, " verdicts come out. Then: ", outcome.state_message),
           80, 0);
  if (outcome.different_record.has_value()) {
    text +=
        Wrap(absl::StrCat("Record ", *outcome.different_record, " differs: ", outcome.difference),
             80, 0);
  }
  if (!outcome.damage.empty())
    text += Wrap(absl::StrCat("The log is damaged: ", outcome.damage), 80, 0);
  return text;
}

}  // namespace

CLI::App* AddReplayCommand(CLI::App& app, ReplayArguments& arguments) {
  CLI::App* command =
      app.add_subcommand("replay", "prove that a run's verdicts follow from its log");
  command->add_option("RUN", arguments.run_dir, "run directory, with decisions.db")
      ->required()
      ->type_name("");
  command->add_flag("--json", arguments.json, "one object, for scripts");
  command->footer(
      "Plays the recorded events through the service's core again, from the first one on, and\n"
      "compares every field of every decision. Works while the run goes on; changes nothing.\n\n"
      "Example: smartpipe replay runs/fixed\n\n"
      "Exit codes: 0 all the same, 1 a decision differs or the log is damaged, 2 no run directory\n"
      "with a log.");
  return command;
}

int ReplayCommand(const ReplayArguments& arguments) {
  const absl::StatusOr<Outcome> outcome = ReplayRun(arguments.run_dir);
  if (!outcome.ok())
    return Fail(outcome.status(), absl::IsDataLoss(outcome.status()) ? kExitFailed : kExitUsage);
  std::cout << (arguments.json ? OutcomeJson(arguments.run_dir, *outcome)
                               : OutcomeText(arguments.run_dir, *outcome));
  const bool proven = outcome->difference.empty() && outcome->damage.empty();
  return proven ? kExitFinished : kExitFailed;
}

}  // namespace smartpipe
