// What a layer store's folder holds, read beside the process that serves it.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
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

}  // namespace smartpipe
