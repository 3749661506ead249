// `smartpipe top`: a live screen of a run.
#pragma once

#include "cli/run_client.h"

namespace smartpipe {

struct TopArguments {
  RunTarget target;
  double period_s = 1;
  bool once = false;
};

/// Adds the command and its options; they are read into `arguments`.
CLI::App* AddTopCommand(CLI::App& app, TopArguments& arguments);

/// Draws until the run is over or Ctrl-C. Returns an exit code.
int TopCommand(const TopArguments& arguments);

}  // namespace smartpipe
