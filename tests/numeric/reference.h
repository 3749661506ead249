// The truth for numbers: a plain single-process training loop that uses none of the pipeline code.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "services/config/run_config.h"
#include "worker/data/dataset.h"
#include "worker/model/model.h"

namespace smartpipe {

struct ReferenceResult {
  std::string weights_sha256;
  std::vector<double> losses;              // [step]
  std::vector<std::string> layer_sha256;   // [layer] at the end
  std::vector<std::string> frozen_sha256;  // [layer] at the moment of its freeze; "" = never frozen
};

/// Trains num_steps steps on one thread. `frontiers`: (step, frontier), steps ascending: layers
/// below the frontier are frozen from that step on; those that a falling one lets train again have
/// a new optimizer.
ReferenceResult TrainReference(const RunConfig& config, const ModelSpec& model,
                               const Dataset& dataset, int64_t num_steps,
                               const std::vector<std::pair<int64_t, int64_t>>& frontiers);

}  // namespace smartpipe
