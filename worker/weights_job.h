// Work on stored weights, by one process and without any service: a checkpoint as a weights file,
// and the score of weights on the test set.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "services/base/ids.h"
#include "worker/engine/interpreter.h"

namespace smartpipe {

struct ExportOptions {
  std::string run_dir;
  std::optional<Step> step;  // none = the newest complete checkpoint
  std::string output_path;   // replaced in one step
};

struct ExportResult {
  Step step;
  int64_t num_tensors = 0;
  int64_t tensor_bytes = 0;
  std::string weights_sha256;
};

/// Writes the weights of a run's checkpoint as Train writes those of the last step: the same bytes.
/// Reads the run's folder only, beside a running service or without one. Memory: all weights, and
/// one layer's state.
/// Errors: of ReadCheckpoint and WriteSafetensors.
absl::StatusOr<ExportResult> ExportWeights(const ExportOptions& options);

struct EvalOptions {
  std::string config_path;
  std::string run_dir;       // "" = weights_path counts
  std::optional<Step> step;  // of run_dir; none = the newest complete checkpoint
  std::string weights_path;  // a safetensors file
};

struct EvalResult {
  std::optional<Step> step;  // none = of a file
  TestScore score;
  int64_t num_samples = 0;
  std::string weights_sha256;
};

/// Scores weights on the test set of the config, as training does: the same numbers for the same
/// weights and worker.threads. The config's model.weights does not count.
/// Errors: of ParseRunConfig, OpenDataset, ReadCheckpoint, ReadSafetensors; INVALID_ARGUMENT for
/// weights that are not the model's, with the first tensor that differs.  Threads: becomes the
/// compute thread.
absl::StatusOr<EvalResult> EvaluateWeights(const EvalOptions& options);

}  // namespace smartpipe
