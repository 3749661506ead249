// A job on stored weights, done by a stage_worker without any service: this program has no
// LibTorch.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace smartpipe {

/// What the job gives; a number that it does not give is 0.
struct WeightsAnswer {
  std::optional<int64_t> step;  // of the checkpoint; none = the weights of a file
  std::string weights_sha256;
  double test_accuracy = 0;  // 0..1
  double test_loss = 0;      // NaN = not finite
  int64_t num_samples = 0;
  int64_t num_tensors = 0;
  int64_t tensor_bytes = 0;
};

/// NOT_FOUND, with the run directories below if there are any, unless checkpoints are kept in
/// `run_dir`.
absl::Status CheckRunDir(const std::string& run_dir);

/// Reads the line of JSON that the worker writes.
/// Errors: the worker's own, with its code; INTERNAL for anything that no worker writes.
/// Threads: pure.
absl::StatusOr<WeightsAnswer> ParseWeightsAnswer(absl::string_view json);

/// Runs `stage_worker WORDS...`, which lies in the folder of this program, until it ends. Its log
/// goes to stderr.
/// Errors: of ParseWeightsAnswer; CANCELLED after a stop signal; INTERNAL when it cannot be started
/// or dies.  Threads: the main thread only.
absl::StatusOr<WeightsAnswer> RunWeightsWorker(const std::vector<std::string>& words);

/// The exit code that tells such an error: what was asked for is not there, or a failure.
int WeightsExitCode(const absl::Status& status);

}  // namespace smartpipe
