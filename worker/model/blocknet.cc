#include "absl/strings/str_cat.h"
#include "worker/model/layer_list.h"
#include "worker/model/models.h"

namespace smartpipe {
namespace {

constexpr int kNumBlocks = 24;
constexpr int64_t kChannels = 64;

}  // namespace

std::unique_ptr<ModelSpec> MakeBlocknet(const std::vector<int64_t>& sample_shape,
                                        int64_t num_classes) {
  std::vector<LayerRow> rows = {ConvBnReluRow("stem", sample_shape[0], kChannels, /*stride=*/2)};
  for (int block = 0; block < kNumBlocks; ++block) {
    rows.push_back(ConvBnReluRow(absl::StrCat("block", block), kChannels, kChannels, /*stride=*/1));
  }
  rows.push_back(HeadRow("head", "head.fc", kChannels, num_classes));
  return std::make_unique<LayerList>(std::move(rows));
}

}  // namespace smartpipe
