// Dataset and model of a config, as training and evaluation start with them.
#pragma once

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "services/config/run_config.h"
#include "worker/data/dataset.h"
#include "worker/engine/interpreter.h"
#include "worker/model/model.h"

namespace smartpipe {

struct BuiltModel {
  std::unique_ptr<Dataset> dataset;
  std::unique_ptr<ModelSpec> model;
  std::vector<std::unique_ptr<Layer>> layers;  // with their keyed initialisation
  EngineContext context;                       // of these; no transport, no start weights
};

/// `config` must outlive the result's context.  Errors: of OpenDataset and MakeModel.
absl::StatusOr<BuiltModel> BuildModel(const RunConfig& config);

}  // namespace smartpipe
