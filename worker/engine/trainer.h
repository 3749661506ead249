// The training loop of one worker: steps, boundaries, reports, evaluations, final weights.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "services/config/run_config.h"
#include "worker/control/checkpoint_sink.h"
#include "worker/control/control_plane.h"
#include "worker/control/messages.h"
#include "worker/engine/interpreter.h"

namespace smartpipe {

struct TrainerOptions {
  EngineContext context;
  RunShape shape;
  WorkerAssignment assignment;
  std::string weights_path;  // where the last stage writes model.safetensors; "" = do not write
  CheckpointSink* checkpoints = nullptr;  // null = none are taken
};

/// Runs the whole run on this rank and returns its figures; on the last stage's rank with the
/// weights' digest.
///
/// At each boundary the loop waits for that boundary's verdict (decided an interval ago, so
/// normally there), switches plans, and goes on. At the end of each interval it reports. Every
/// shape.checkpoint_steps steps, and after the last one, it packs its layers for a checkpoint,
/// which changes nothing of them. Never talks to the network itself. Errors: of the transport or
/// the control plane, with the step where it happened.  Threads: the compute thread.
absl::StatusOr<WorkerResult> Train(const TrainerOptions& options, ControlPlane& control);

}  // namespace smartpipe
