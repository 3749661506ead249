// `smartpipe timeline`: the measured pipeline, drawn.
#pragma once

#include <string>

namespace CLI {
class App;
}

namespace smartpipe {

struct TimelineArguments {
  std::string run_dir;
  std::string svg_path, perfetto_path;  // empty = do not draw
  std::string steps;                    // "A:B"; empty = what is most interesting
};

/// Adds the command and its options; they are read into `arguments`.
CLI::App* AddTimelineCommand(CLI::App& app, TimelineArguments& arguments);

/// Draws to the files that are named; without one, says what there is. Returns an exit code.
int TimelineCommand(const TimelineArguments& arguments);

}  // namespace smartpipe
