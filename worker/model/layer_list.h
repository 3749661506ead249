// A ModelSpec made of rows: a name and how to build the layer.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "worker/model/model.h"

namespace smartpipe {

struct LayerRow {
  std::string name;
  std::function<std::unique_ptr<Layer>(const std::string& name, LayerIndex layer, int64_t seed)>
      make;
};

class LayerList final : public ModelSpec {
 public:
  explicit LayerList(std::vector<LayerRow> rows) : rows_(std::move(rows)) {}
  int32_t num_layers() const override { return static_cast<int32_t>(rows_.size()); }
  std::string layer_name(LayerIndex layer) const override { return row(layer).name; }
  std::unique_ptr<Layer> MakeLayer(LayerIndex layer, int64_t seed) const override {
    return row(layer).make(row(layer).name, layer, seed);
  }

 private:
  const LayerRow& row(LayerIndex layer) const {
    return rows_.at(static_cast<size_t>(layer.value()));
  }

  const std::vector<LayerRow> rows_;
};

/// Row of a ConvBnReluLayer with the parameters <name>.conv.* and <name>.bn.*.
LayerRow ConvBnReluRow(const std::string& name, int64_t in_channels, int64_t out_channels,
                       int64_t stride);
/// Row of a HeadLayer with the parameters `linear_prefix`.*.
LayerRow HeadRow(const std::string& name, const std::string& linear_prefix, int64_t in_channels,
                 int64_t num_classes);

}  // namespace smartpipe
