#include "worker/model/model.h"

#include <utility>

#include "ATen/ops/cross_entropy_loss.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "services/base/nearest_name.h"
#include "worker/model/blocks.h"
#include "worker/model/layer_list.h"
#include "worker/model/models.h"

namespace smartpipe {
namespace {

struct ModelRow {
  const char* name;
  int64_t size_min;  // smallest height and width of a sample
  std::unique_ptr<ModelSpec> (*make)(const std::vector<int64_t>& sample_shape, int64_t num_classes);
};

constexpr ModelRow kModels[] = {
    {"convnet", 16, MakeConvnet},
    {"resnet18", 16, MakeResnet18},
    {"blocknet", 16, MakeBlocknet},
};

}  // namespace

LayerRow ConvBnReluRow(const std::string& name, int64_t in_channels, int64_t out_channels,
                       int64_t stride) {
  const Conv2d::Options options{in_channels, out_channels, /*kernel=*/3, stride, /*padding=*/1};
  return {
      name,
      [options](const std::string& name, LayerIndex layer, int64_t seed) -> std::unique_ptr<Layer> {
        return std::make_unique<ConvBnReluLayer>(name, name + ".conv", name + ".bn", options, layer,
                                                 seed);
      }};
}

LayerRow HeadRow(const std::string& name, const std::string& linear_prefix, int64_t in_channels,
                 int64_t num_classes) {
  return {name,
          [=](const std::string& name, LayerIndex layer, int64_t seed) -> std::unique_ptr<Layer> {
            return std::make_unique<HeadLayer>(name, linear_prefix, in_channels, num_classes, layer,
                                               seed);
          }};
}

absl::StatusOr<std::unique_ptr<ModelSpec>> MakeModel(const std::string& name,
                                                     const std::vector<int64_t>& sample_shape,
                                                     int64_t num_classes) {
  std::vector<std::string> names;
  for (const ModelRow& row : kModels) {
    names.push_back(row.name);
    if (name != row.name) continue;
    if (sample_shape.size() != 3 || sample_shape[0] < 1 || sample_shape[1] < row.size_min ||
        sample_shape[2] < row.size_min) {
      return absl::InvalidArgumentError(absl::StrCat(
          "model ", name,
          " takes samples [channels, height, width] with height and width of at least ",
          row.size_min, ", not [", absl::StrJoin(sample_shape, ", "),
          "]: choose another dataset or model"));
    }
    if (num_classes < 2) {
      return absl::InvalidArgumentError(
          absl::StrCat("model ", name, " needs at least 2 classes, not ", num_classes));
    }
    return row.make(sample_shape, num_classes);
  }
  return absl::InvalidArgumentError(absl::StrCat("unknown model \"", name, "\": did you mean \"",
                                                 NearestName(name, names), "\"?"));
}

std::vector<std::vector<int64_t>> EdgeShapes(const std::vector<std::unique_ptr<Layer>>& layers,
                                             const std::vector<int64_t>& sample_shape) {
  std::vector<std::vector<int64_t>> shapes = {sample_shape};
  for (const std::unique_ptr<Layer>& layer : layers) {
    shapes.push_back(layer->OutputShape(shapes.back()));
  }
  return shapes;
}

at::Tensor CrossEntropy(const at::Tensor& logits, const at::Tensor& labels) {
  return at::cross_entropy_loss(logits, labels);
}

}  // namespace smartpipe
