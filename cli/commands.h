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
  std::string run_dir;           // empty = runs/<utc time>-<policy>; of a demo runs/<utc time>-demo
  std::string summary_path;      // empty = only in the run directory
  std::string resume = "never";  // or auto, or the step of a checkpoint
};

/// Trains on this machine and shows it. Returns an exit code.
int TrainCommand(const TrainArguments& arguments);

/// Trains twice with the same seed, with freeze.policy = full and with the config's own policy, and
/// compares. A config whose policy is full is a mistake.
int DemoCommand(const TrainArguments& arguments);

/// Says whether a config is good, or what is wrong with it.
int ConfigCheckCommand(const std::string& path, const std::vector<std::string>& sets);
/// Prints the config with every key.
int ConfigShowCommand(const std::string& path, const std::vector<std::string>& sets);
/// Prints the table of keys that begin with `prefix` ("" = all).
int ConfigKeysCommand(const std::string& prefix);

}  // namespace smartpipe
