#include "worker/built_model.h"

#include "services/base/status_macros.h"

namespace smartpipe {

absl::StatusOr<BuiltModel> BuildModel(const RunConfig& config) {
  BuiltModel built;
  SP_ASSIGN_OR_RETURN(built.dataset, OpenDataset(config));
  SP_ASSIGN_OR_RETURN(built.model, MakeModel(config.model.name, built.dataset->sample_shape(),
                                             built.dataset->num_classes()));
  for (LayerIndex layer(0); layer.value() < built.model->num_layers(); ++layer)
    built.layers.push_back(built.model->MakeLayer(layer, config.train.seed));
  built.context = {.config = &config,
                   .model = built.model.get(),
                   .dataset = built.dataset.get(),
                   .transport = nullptr,
                   .start_weights = {},
                   .edge_shapes = EdgeShapes(built.layers, built.dataset->sample_shape())};
  return built;
}

}  // namespace smartpipe
