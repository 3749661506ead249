// `smartpipe eval`: how good weights are on the test set.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "cli/weights_worker.h"

namespace CLI {
class App;
}

namespace smartpipe {

struct EvalArguments {
  std::string source;           // a run directory or a weights file
  std::optional<int64_t> step;  // of a run; none = the newest complete checkpoint
  std::string config_path;      // empty = the run's own
  bool json = false;
};

/// Adds the command and its options; they are read into `arguments`.
CLI::App* AddEvalCommand(CLI::App& app, EvalArguments& arguments);

/// Evaluates and prints the result. Returns an exit code.
int EvalCommand(const EvalArguments& arguments);

/// Threads: pure; so is the next.
std::string EvalText(const EvalArguments& arguments, const WeightsAnswer& answer);
std::string EvalJson(const WeightsAnswer& answer);

}  // namespace smartpipe
