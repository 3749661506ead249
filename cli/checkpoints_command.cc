#include "cli/checkpoints_command.h"

#include <iostream>
#include <set>
#include <utility>

#include "CLI/CLI.hpp"
#include "absl/strings/str_cat.h"
#include "cli/commands.h"
#include "cli/complaint.h"
#include "cli/render.h"
#include "nlohmann/json.hpp"

namespace smartpipe {
namespace {

std::string StateText(const CheckpointRow& row) {
  if (!row.files.problem.empty()) return "damaged";
  return absl::StrCat(row.files.manifest.complete() ? "complete" : "incomplete",
                      row.files.pinned ? ", pinned" : "");
}

}  // namespace

CLI::App* AddCheckpointsCommand(CLI::App& app, CheckpointsArguments& arguments) {
  CLI::App* command = app.add_subcommand("checkpoints", "list what is stored of a run");
  command->add_option("RUN", arguments.run_dir, "run directory")->required()->type_name("");
  command->add_flag("--json", arguments.json, "print one JSON object");
  command->footer(
      "Works while the run goes on, and after it failed. A checkpoint holds the state after\n"
      "`step` steps; its shared bytes are those that one before it holds, too.\n\n"
      "Example: smartpipe checkpoints runs/fixed\n\n"
      "Exit codes: 0 done, 2 no run directory with checkpoints.");
  return command;
}

std::vector<CheckpointRow> CheckpointRows(std::vector<CheckpointFiles> checkpoints) {
  std::set<ContentDigest> seen;
  std::vector<CheckpointRow> rows;
  for (CheckpointFiles& files : checkpoints) {
    CheckpointRow& row = rows.emplace_back(CheckpointRow{.files = std::move(files)});
    for (const auto& [layer, entry] : row.files.manifest.layers) {
      const bool is_new = seen.insert(entry.digest).second;
      (is_new ? row.new_bytes : row.shared_bytes) += entry.size_bytes;
    }
  }
  return rows;
}

std::string CheckpointsTable(const std::vector<CheckpointRow>& rows) {
  std::vector<std::vector<std::string>> cells = {
      {"step", "layers", "new bytes", "shared bytes", "state"}};
  for (const CheckpointRow& row : rows) {
    const Manifest& manifest = row.files.manifest;
    cells.push_back({absl::StrCat(manifest.step.value()),
                     absl::StrCat(manifest.layers.size(), " of ", manifest.num_layers),
                     absl::StrCat(row.new_bytes), absl::StrCat(row.shared_bytes), StateText(row)});
  }
  std::string text = FormatColumns(cells);
  for (const CheckpointRow& row : rows) {
    if (row.files.problem.empty()) continue;
    absl::StrAppend(&text, Wrap(absl::StrCat("Step ", row.files.manifest.step.value(), ": ",
                                             row.files.problem, "."),
                                79, 0));
  }
  return text;
}

std::string CheckpointsJson(const std::vector<CheckpointRow>& rows) {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const CheckpointRow& row : rows) {
    const Manifest& manifest = row.files.manifest;
    list.push_back({{"run", manifest.run},
                    {"step", manifest.step.value()},
                    {"generation", manifest.generation.value()},
                    {"complete", row.files.problem.empty() && manifest.complete()},
                    {"pinned", row.files.pinned},
                    {"num_layers", manifest.num_layers},
                    {"num_layers_stored", manifest.layers.size()},
                    {"new_bytes", row.new_bytes},
                    {"shared_bytes", row.shared_bytes},
                    {"problem", row.files.problem}});
  }
  const nlohmann::ordered_json object = {{"checkpoints", std::move(list)}};
  return object.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

int CheckpointsCommand(const CheckpointsArguments& arguments) {
  absl::StatusOr<std::vector<CheckpointFiles>> checkpoints =
      ReadCheckpoints(arguments.run_dir + "/checkpoints");
  if (!checkpoints.ok()) {
    return Fail(
        absl::Status(checkpoints.status().code(),
                     absl::StrCat(arguments.run_dir, " is no run directory with checkpoints: ",
                                  checkpoints.status().message())),
        kExitUsage);
  }
  const std::vector<CheckpointRow> rows = CheckpointRows(*std::move(checkpoints));
  if (arguments.json) {
    std::cout << CheckpointsJson(rows);
  } else if (rows.empty()) {
    std::cout << "No checkpoint yet: the first is taken after checkpoint.every_steps steps.\n";
  } else {
    std::cout << CheckpointsTable(rows);
  }
  return kExitFinished;
}

}  // namespace smartpipe
