// `smartpipe ctl`: an operator's orders.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "cli/run_client.h"

namespace smartpipe {

struct CtlArguments {
  RunTarget target;
  std::string request_id;       // empty = the service gives one
  std::string reason;           // in the operator's words
  std::optional<int64_t> step;  // nothing = the next boundary that can be
  bool dry_run = false;
  bool json = false;
  // Of single orders.
  int32_t frontier = 0;
  std::vector<int32_t> cuts;  // empty = the best found
  std::string worker_id;
  bool at_once = false;
  std::string policy;             // empty = it stays
  std::vector<std::string> sets;  // KEY=VALUE of freeze.*
};

/// Adds the command with one subcommand per order; their options are read into `arguments`.
CLI::App* AddCtlCommand(CLI::App& app, CtlArguments& arguments);

/// Gives the order of the subcommand that was parsed, and prints the answer. Returns an exit code.
int CtlCommand(const CLI::App& ctl, const CtlArguments& arguments);

}  // namespace smartpipe
