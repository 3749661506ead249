// The training loop of one worker: steps, boundaries, reports, evaluations, final weights.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "services/config/run_config.h"
#include "worker/control/checkpoint_sink.h"
#include "worker/control/checkpoint_source.h"
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
  CheckpointSource* source = nullptr;     // where a generation finds the one to go on from
};

/// Runs a generation on this rank, from the assignment's first step to the run's last one or to the
/// boundary at which it stops, and returns its figures; on the last stage's rank with the weights'
/// digest if it was the last step.
///
/// At each boundary the loop waits for that boundary's verdict (decided an interval ago, so
/// normally there), switches plans, and goes on. At the end of each interval it reports. Every
/// shape.checkpoint_steps steps, behind the evaluation if one is due, and after the last one, it
/// packs its layers for a checkpoint, which changes nothing of them. Never talks to the network
/// itself. Errors: of the transport or the control plane, with the step where it happened. Threads:
/// the compute thread.
absl::StatusOr<WorkerResult> Train(const TrainerOptions& options, ControlPlane& control);

}  // namespace smartpipe
