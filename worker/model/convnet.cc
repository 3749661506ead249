#include "absl/strings/str_cat.h"
#include "worker/model/layer_list.h"
#include "worker/model/models.h"

namespace smartpipe {
namespace {

struct ConvRow {
  int64_t out_channels, stride;
};

// Front-heavy, as convolutional networks are: the early layers work on the large maps.
constexpr ConvRow kConvs[] = {{32, 1}, {32, 1}, {64, 2}, {64, 1}, {128, 2}, {128, 1}};

}  // namespace

std::unique_ptr<ModelSpec> MakeConvnet(const std::vector<int64_t>& sample_shape,
                                       int64_t num_classes) {
  std::vector<LayerRow> rows;
  int64_t channels = sample_shape[0];
  for (const ConvRow& conv : kConvs) {
    const std::string name = absl::StrCat("conv", rows.size() + 1);
    rows.push_back(ConvBnReluRow(name, channels, conv.out_channels, conv.stride));
    channels = conv.out_channels;
  }
  rows.push_back(HeadRow("head", "head.fc", channels, num_classes));
  return std::make_unique<LayerList>(std::move(rows));
}

}  // namespace smartpipe
