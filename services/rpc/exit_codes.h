// Exit codes that launchers act on, the same in all programs; docs/operations.md has them all.
#pragma once

#include <optional>

namespace smartpipe {

inline constexpr int kExitWrongUsage = 2;
/// Of a stage_worker: the run has failed and is over. Starting the worker again mends nothing.
inline constexpr int kExitRunFailed = 3;

/// Parses the command line of `main`. Nothing: go on. Else the exit code: 0 after --help or
/// --version, kExitWrongUsage after saying what is wrong (CLI11 itself has a dozen codes for that).
/// App, ParseError: CLI::App, CLI::ParseError.
template <typename ParseError, typename App>
std::optional<int> ParseFlags(App& app, int argc, char** argv) {
  try {
    app.parse(argc, argv);
  } catch (const ParseError& error) {
    return app.exit(error) == 0 ? 0 : kExitWrongUsage;
  }
  return std::nullopt;
}

}  // namespace smartpipe
