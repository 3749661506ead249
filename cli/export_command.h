// `smartpipe export`: the weights of a checkpoint as a file.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "cli/weights_worker.h"

namespace CLI {
class App;
}

namespace smartpipe {

struct ExportArguments {
  std::string run_dir;
  std::optional<int64_t> step;  // none = the newest complete checkpoint
  std::string output_path;
  bool json = false;
};

/// Adds the command and its options; they are read into `arguments`.
CLI::App* AddExportCommand(CLI::App& app, ExportArguments& arguments);

/// Writes the file and says what is in it. Returns an exit code.
int ExportCommand(const ExportArguments& arguments);

/// Threads: pure; so is the next.
std::string ExportText(const ExportArguments& arguments, const WeightsAnswer& answer);
std::string ExportJson(const ExportArguments& arguments, const WeightsAnswer& answer);

}  // namespace smartpipe
