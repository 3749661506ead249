// Profiling: what each layer costs on this machine, measured before the first plan is made.
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "pipeline/partition.h"
#include "worker/engine/interpreter.h"

namespace smartpipe {

/// Runs every layer of the model a few times forward and backward on one random micro-batch and
/// returns the medians, one entry per layer. The layers are thrown away afterwards: nothing of the
/// run changes. Errors: those of building the layers (a weights file that does not fit).  Cost:
/// about nine micro-batches of training.
absl::StatusOr<std::vector<LayerCost>> ProfileLayers(const EngineContext& context);

}  // namespace smartpipe
