#include "cli/resume.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <system_error>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "cli/files.h"
#include "freeze_service/store/run_settings.h"
#include "services/base/limits.h"
#include "services/base/status_macros.h"
#include "services/parameter_service/stored_checkpoints.h"

namespace smartpipe {
namespace {

std::vector<Step> CompleteCheckpoints(const std::string& run_dir) {
  std::vector<Step> steps;
  const absl::StatusOr<std::vector<CheckpointFiles>> checkpoints =
      ReadCheckpoints(run_dir + "/checkpoints");
  if (!checkpoints.ok()) return steps;
  for (const CheckpointFiles& files : *checkpoints) {
    if (files.problem.empty() && files.manifest.complete()) steps.push_back(files.manifest.step);
  }
  return steps;
}

absl::Status CheckStep(const std::string& run_dir, const std::string& resume) {
  int64_t wanted = 0;
  if (!absl::SimpleAtoi(resume, &wanted)) return absl::OkStatus();  // auto
  const std::vector<Step> steps = CompleteCheckpoints(run_dir);
  for (const Step step : steps) {
    if (step.value() == wanted) return absl::OkStatus();
  }
  if (wanted == 0) return absl::OkStatus();  // from the start
  return absl::FailedPreconditionError(absl::StrCat(
      "--resume ", wanted, ": ", run_dir, " has no complete checkpoint of that step; there are ",
      steps.empty() ? "none" : absl::StrJoin(steps, ", ", absl::StreamFormatter()),
      "; 0 is the start"));
}

// The freeze service holds a lock on the folder of its run.
absl::Status CheckUnserved(const std::string& run_dir) {
  const int fd = open(run_dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return absl::OkStatus();  // what reads it says why
  const bool is_served = flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK;
  close(fd);
  if (!is_served) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("the run in ", run_dir,
                   " is going on in another process; let it, or stop that one first. Nothing was "
                   "started"));
}

}  // namespace

absl::Status CheckResumeWord(const std::string& resume) {
  int64_t step = 0;
  if (resume == kResumeNever || resume == kResumeAuto) return absl::OkStatus();
  if (absl::SimpleAtoi(resume, &step) && step >= 0 && step <= limits::kStepsMax)
    return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "--resume is \"", resume.substr(0, 60), "\"; give never, auto or the step of a checkpoint"));
}

bool HoldsRun(const std::string& run_dir) {
  std::error_code error;
  return std::filesystem::is_regular_file(run_dir + "/config.toml", error);
}

bool HoldsFinishedRun(const std::string& run_dir) {
  std::error_code error;
  return std::filesystem::is_regular_file(run_dir + "/summary.json", error);
}

std::optional<Step> NewestCheckpoint(const std::string& run_dir) {
  const std::vector<Step> steps = CompleteCheckpoints(run_dir);
  return steps.empty() ? std::nullopt : std::optional(steps.back());
}

absl::Status CheckSameRun(const std::string& run_dir, const RunConfig& config) {
  const absl::StatusOr<std::string> recorded =
      ReadSmallFile(run_dir + "/config.toml", limits::kConfigBytesMax);
  if (!recorded.ok()) {
    return absl::FailedPreconditionError(
        absl::StrCat(run_dir, " holds no run to go on with: ", recorded.status().message()));
  }
  const std::string difference =
      DifferenceOf({.config_toml = *recorded}, {.config_toml = ToToml(config)}, Resuming::kYes);
  if (difference.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "the run in ", run_dir, " cannot go on with this config: ", difference,
      "; only pipeline, rebalance, worker, tls, log and address keys may change. Give the "
      "recorded value, or start a new run in another folder"));
}

absl::Status PrepareResume(const std::string& run_dir, const RunConfig& config,
                           const std::string& resume) {
  SP_RETURN_IF_ERROR(CheckSameRun(run_dir, config));
  SP_RETURN_IF_ERROR(CheckStep(run_dir, resume));
  SP_RETURN_IF_ERROR(CheckUnserved(run_dir));
  std::error_code error;
  std::filesystem::create_directories(run_dir + "/logs", error);
  return WriteFileAtomically(run_dir + "/config.toml", ToToml(config));
}

}  // namespace smartpipe
