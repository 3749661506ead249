#include "tests/integration/train_harness.h"

#include <sstream>

#include "absl/strings/match.h"
#include "tests/testutil/test_device.h"

namespace smartpipe::testutil {
namespace {

constexpr char kConfig[] = R"(
[train]
epochs = 1
batch_size = 16
microbatches = 4
seed = 11
[freeze]
policy = "full"
interval_steps = 4
[data]
name = "fashion_mnist"
limit_train = 256
limit_test = 100
)";

}  // namespace

TrainRun::TrainRun(const std::vector<std::string>& sets, const std::string& run_dir,
                   const std::string& resume)
    : run_dir_(run_dir.empty() ? dir_.File("run") : run_dir) {
  WriteFile(dir_.File("config.toml"), kConfig);
  std::vector<std::string> argv = {Binary("smartpipe"),
                                   "train",
                                   dir_.File("config.toml"),
                                   "--run-dir",
                                   run_dir_,
                                   "--summary",
                                   dir_.File("summary.json")};
  if (!resume.empty()) argv.insert(argv.end(), {"--resume", resume});
  if (TestDevice() != "cpu") argv.insert(argv.end(), {"--set", "worker.device=" + TestDevice()});
  for (const std::string& set : sets) {
    argv.push_back("--set");
    argv.push_back(set);
  }
  process_ = std::make_unique<Process>(argv);
}

int TrainRun::Wait() { return process_->Wait(absl::Minutes(2)).value_or(-1); }

std::vector<nlohmann::json> TrainRun::Lines(const std::string& name) const {
  std::vector<nlohmann::json> lines;
  std::istringstream text(ReadFile(run_dir() + "/" + name));
  for (std::string line; std::getline(text, line);)
    lines.push_back(nlohmann::json::parse(line, nullptr, false));
  return lines;
}

pid_t TrainRun::Child(const std::string& word) const {
  for (const ChildInfo& child : ChildrenOf(process_->pid())) {
    if (absl::StrContains(child.command_line, word)) return child.pid;
  }
  return -1;
}

bool TrainRun::WaitForSteps(int64_t num_steps) const {
  return Eventually(
      [&] { return static_cast<int64_t>(Lines("metrics.jsonl").size()) >= num_steps; },
      absl::Seconds(60));
}

}  // namespace smartpipe::testutil
