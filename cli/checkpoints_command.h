// `smartpipe checkpoints`: what is stored of a run.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "services/parameter_service/stored_checkpoints.h"

namespace CLI {
class App;
}

namespace smartpipe {

struct CheckpointsArguments {
  std::string run_dir;
  bool json = false;
};

/// Adds the command and its options; they are read into `arguments`.
CLI::App* AddCheckpointsCommand(CLI::App& app, CheckpointsArguments& arguments);

/// Prints the table or the JSON. Returns an exit code.
int CheckpointsCommand(const CheckpointsArguments& arguments);

/// One checkpoint in the table.
struct CheckpointRow {
  CheckpointFiles files;
  int64_t new_bytes = 0;     // of contents that no checkpoint before it holds
  int64_t shared_bytes = 0;  // of those that one does
};
/// `checkpoints` by run and step.  Threads: pure; so are the next two.
std::vector<CheckpointRow> CheckpointRows(std::vector<CheckpointFiles> checkpoints);
std::string CheckpointsTable(const std::vector<CheckpointRow>& rows);
std::string CheckpointsJson(const std::vector<CheckpointRow>& rows);

}  // namespace smartpipe
