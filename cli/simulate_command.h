// `smartpipe simulate`: one pipeline, its time and its bubbles.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "pipeline/simulate.h"

namespace CLI {
class App;
}

namespace smartpipe {

struct SimulateArguments {
  std::string schedule;
  int stages = 0, samples = 0, batch = 0;
  int stages_per_worker = 1;  // dealt out in turn, see DealStages
  int frozen_stages = 0;
  std::string flush = "none";  // "none": the paper's rules; "step": what the engine does
  std::string costs_path;      // empty = forward and backward take one slot each
  std::string svg_path;        // empty = no picture
  bool json = false;

  int num_workers() const { return stages / stages_per_worker; }
};

/// Adds the command and its options; they are read into `arguments`.
CLI::App* AddSimulateCommand(CLI::App& app, SimulateArguments& arguments);

/// Prints figures, and writes the picture. Returns an exit code.
int SimulateCommand(const SimulateArguments& arguments);

/// A pipeline that was played, and what its numbers mean.
struct PlayedPipeline {
  SimulateResult result;
  double scale = 1;  // of seconds, to print them as
  std::string unit;  // "slots" or "us"
};
/// Errors: INVALID_ARGUMENT with the option and the cure, or of the cost file.
absl::StatusOr<PlayedPipeline> PlayPipeline(const SimulateArguments& arguments);

/// What --json prints.
std::string SimulateJson(const SimulateArguments& arguments, const PlayedPipeline& played);
/// What is printed without it.
std::string SimulateText(const SimulateArguments& arguments, const PlayedPipeline& played);
/// What --svg writes.
absl::StatusOr<std::string> SimulateSvg(const SimulateArguments& arguments,
                                        const PlayedPipeline& played);
/// Writes `svg`, if it is one. Returns an exit code and says why it is not kExitFinished.
int WriteSvg(const absl::StatusOr<std::string>& svg, const std::string& path);

}  // namespace smartpipe
