// `smartpipe explain`: where the time of a run went.
#pragma once

#include <string>

namespace CLI {
class App;
}

namespace smartpipe {

struct ExplainArguments {
  std::string run_dir;
  bool json = false;
};

/// Adds the command and its options; they are read into `arguments`.
CLI::App* AddExplainCommand(CLI::App& app, ExplainArguments& arguments);

/// Prints the explanation. Returns an exit code.
int ExplainCommand(const ExplainArguments& arguments);

}  // namespace smartpipe
