// What a layer store's folder holds, read beside the process that serves it.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "services/base/ids.h"
#include "services/parameter_service/file_operations.h"
#include "services/parameter_service/manifest.h"

namespace smartpipe {

/// One checkpoint as its small files tell; whether its contents are whole only the service knows.
struct CheckpointFiles {
  Manifest manifest;  // run and step only when `problem` is there
  bool pinned = false;
  std::string problem;  // why its manifest cannot be read; empty = it can
};

/// All checkpoints of a store's folder, complete or not, by run and step. Changes nothing; what is
/// deleted meanwhile is left out.
/// Errors: NOT_FOUND when `folder` is no store's.  Threads: any.  Cost: reads every manifest.
absl::StatusOr<std::vector<CheckpointFiles>> ReadCheckpoints(const std::string& folder,
                                                             FileOperations& files = SystemFiles());

/// The complete checkpoint of `step`, else the newest one that can be read.
/// Errors: UNAVAILABLE when there is none yet; NOT_FOUND for a step that is not stored as a whole,
/// with those that are; DATA_LOSS when its manifest cannot be read; FAILED_PRECONDITION when
/// complete checkpoints of several runs are among them.  Threads: pure.
absl::StatusOr<Manifest> ChooseCheckpoint(const std::vector<CheckpointFiles>& checkpoints,
                                          std::optional<Step> step);

/// The bytes of a layer, its size and digest checked; takes no more memory than the file has bytes.
/// Errors: NOT_FOUND when the file is gone; DATA_LOSS when it holds anything else.  Threads: any.
absl::StatusOr<std::string> ReadBlob(const std::string& folder, const LayerEntry& entry,
                                     FileOperations& files = SystemFiles());

/// Reads the checkpoint that ChooseCheckpoint gives, one layer in memory at a time, and returns its
/// manifest. `take` gets the layers in order. If the checkpoint is removed meanwhile, as the
/// serving process does with old ones, another is chosen and `take` starts again with layer 0.
/// Errors: of both above and of `take`, with layer, step and path; DATA_LOSS for a layer whose file
/// is gone.  Threads: any.
absl::StatusOr<Manifest> ReadCheckpoint(
    const std::string& folder, std::optional<Step> step,
    const std::function<absl::Status(LayerIndex, const std::string& bytes)>& take,
    FileOperations& files = SystemFiles());

}  // namespace smartpipe
