// The commands of `smartpipe`, behind main's parsing of the command line.
#pragma once

#include <string>
#include <vector>

namespace smartpipe {

/// Exit codes of the command; the same in every command's --help.
inline constexpr int kExitFinished = 0;
inline constexpr int kExitFailed = 1;  // the run failed
inline constexpr int kExitUsage =
    2;  // mistake in the command line or the config; nothing was started
inline constexpr int kExitInterrupted = 130;

struct TrainArguments {
  std::string config_path;
  std::vector<std::string> sets;
  std::string run_dir;       // empty = runs/<time>-<policy>
  std::string summary_path;  // empty = only in the run directory
};

/// Trains on this machine and shows it. Returns an exit code.
int TrainCommand(const TrainArguments& arguments);

/// Trains twice with the same seed, freeze.policy = full and smartpipe, and compares.
int DemoCommand(const TrainArguments& arguments);

/// Complains about a command that does not exist, with the nearest that does.
int UnknownCommand(const std::string& name);

/// Says whether a config is good, or what is wrong with it.
int ConfigCheckCommand(const std::string& path, const std::vector<std::string>& sets);
/// Prints the config with every key.
int ConfigShowCommand(const std::string& path, const std::vector<std::string>& sets);
/// Prints the table of keys.
int ConfigKeysCommand();

}  // namespace smartpipe
