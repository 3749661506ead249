// `smartpipe replay`: proves that a run's recorded decisions follow from its recorded events.
#pragma once

#include <string>

namespace CLI {
class App;
}

namespace smartpipe {

struct ReplayArguments {
  std::string run_dir;
  bool json = false;
};

/// Adds the command and its options; they are read into `arguments`.
CLI::App* AddReplayCommand(CLI::App& app, ReplayArguments& arguments);

/// Prints the outcome. Returns an exit code.
int ReplayCommand(const ReplayArguments& arguments);

}  // namespace smartpipe
