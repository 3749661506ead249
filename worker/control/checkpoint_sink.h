// Where the training loop leaves its checkpoints. CheckpointUploader is the real one, tests keep
// them themselves.
#pragma once

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "services/base/ids.h"

namespace smartpipe {

/// One layer's state.
struct CheckpointLayer {
  LayerIndex layer;
  std::string name;     // as in the model's layer list
  bool frozen = false;  // its state changes no more
  absl::string_view bytes = {};
  std::shared_ptr<const void> owner = nullptr;  // of the bytes; null = WaitReady named the layer
};

/// What one worker puts into the checkpoint of a step.
struct WorkerCheckpoint {
  Step step;                            // steps done
  std::vector<CheckpointLayer> layers;  // all of this worker's, ascending
};

/// Threads: one, the compute thread.
class CheckpointSink {
 public:
  virtual ~CheckpointSink() = default;
  /// Waits until the checkpoint before is stored or given up. Returns the frozen layers that are
  /// stored: they may come without bytes.
  virtual std::set<LayerIndex> WaitReady() = 0;
  /// Takes a checkpoint, after WaitReady; does not wait for it to be stored. What goes wrong with
  /// it is for the sink to tell: training goes on.
  virtual void Put(WorkerCheckpoint checkpoint) = 0;
};

}  // namespace smartpipe
