// `smartpipe train` as a user runs it, with small settings.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "nlohmann/json.hpp"
#include "tests/testutil/process.h"

namespace smartpipe::testutil {

/// A started run with its folder. Defaults: Fashion-MNIST, 256 training images, 1 epoch of 16
/// steps, interval 4, on TestDevice().
class TrainRun {
 public:
  /// `sets`: --set words on top of the defaults. `run_dir`: "" = in an own temporary folder.
  /// `resume`: as --resume; "" = not given.
  explicit TrainRun(const std::vector<std::string>& sets, const std::string& run_dir = "",
                    const std::string& resume = "");
  Process& process() { return *process_; }
  /// Waits up to two minutes and returns the exit code; -1 when it still runs.
  int Wait();
  const std::string& run_dir() const { return run_dir_; }
  nlohmann::json Summary() const {
    return nlohmann::json::parse(ReadFile(dir_.File("summary.json")), nullptr, false);
  }
  /// JSON lines of a file in the run directory.
  std::vector<nlohmann::json> Lines(const std::string& name) const;
  /// Pid of the live child whose command line contains `word`; -1 = none.
  pid_t Child(const std::string& word) const;
  /// True as soon as metrics.jsonl has at least `num_steps` steps.
  bool WaitForSteps(int64_t num_steps) const;

 private:
  TempDir dir_;
  std::string run_dir_;
  std::unique_ptr<Process> process_;
};

}  // namespace smartpipe::testutil
