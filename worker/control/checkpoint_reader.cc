#include "worker/control/checkpoint_reader.h"

#include "services/base/limits.h"
#include "services/base/status_macros.h"

namespace smartpipe {

absl::StatusOr<std::vector<Step>> CheckpointReader::ListSteps() {
  absl::StatusOr<std::vector<v1::Checkpoint>> checkpoints = client_.ListCheckpoints(run_);
  if (absl::IsNotFound(checkpoints.status())) return std::vector<Step>();  // none was taken yet
  SP_RETURN_IF_ERROR(checkpoints.status());
  std::vector<Step> steps;
  for (const v1::Checkpoint& checkpoint : *checkpoints) {
    if (checkpoint.state() == v1::CHECKPOINT_STATE_COMPLETE)
      steps.push_back(Step(checkpoint.step()));
  }
  if (steps.size() > limits::kCheckpointsAnnouncedMax)
    steps.erase(steps.begin(), steps.end() - limits::kCheckpointsAnnouncedMax);
  return steps;
}

absl::StatusOr<std::string> CheckpointReader::Get(Step step, LayerIndex layer) {
  absl::StatusOr<std::string> bytes = client_.GetLayer(run_, step, layer);
  if (bytes.ok() || absl::IsCancelled(bytes.status())) return bytes;
  return absl::UnavailableError(bytes.status().message());
}

}  // namespace smartpipe
