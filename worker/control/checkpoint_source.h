// Where the training loop finds the checkpoint that it goes on from.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "services/base/ids.h"

namespace smartpipe {

/// Threads: one, the compute thread; may block.
class CheckpointSource {
 public:
  virtual ~CheckpointSource() = default;
  /// The bytes that a CheckpointSink was given for the layer after `step` steps.
  /// Errors: UNAVAILABLE when they cannot be had.
  virtual absl::StatusOr<std::string> Get(Step step, LayerIndex layer) = 0;
};

}  // namespace smartpipe
