// ResNet-18 as torchvision has it: names, shapes and order of the weights file.
#include <optional>
#include <string>

#include "ATen/ops/max_pool2d.h"
#include "absl/strings/str_cat.h"
#include "worker/model/blocks.h"
#include "worker/model/layer_list.h"
#include "worker/model/models.h"

namespace smartpipe {
namespace {

constexpr int64_t kStemChannels = 64;
constexpr int64_t kGroupChannels[] = {64, 128, 256, 512};
constexpr int kBlocksPerGroup = 2;

/// [C, H, W] -> [64, H/4, W/4], rounded up.
class StemLayer final : public Layer {
 public:
  StemLayer(const std::string& name, int64_t in_channels, LayerIndex layer, int64_t seed)
      : Layer(name),
        make_(seed, layer, parameters_, buffers_),
        conv_("conv1", {in_channels, kStemChannels, /*kernel=*/7, /*stride=*/2, /*padding=*/3},
              make_),
        bn_("bn1", kStemChannels, make_) {}

  at::Tensor Forward(const at::Tensor& x, Mode mode) override {
    at::Tensor y = bn_.Forward(conv_.Forward(x), mode);
    y.relu_();
    return at::max_pool2d(y, /*kernel_size=*/3, /*stride=*/2, /*padding=*/1);
  }

  std::vector<int64_t> OutputShape(const std::vector<int64_t>& input_shape) const override {
    std::vector<int64_t> shape = conv_.OutputShape(input_shape);
    for (const size_t axis : {1, 2}) shape[axis] = (shape[axis] - 1) / 2 + 1;
    return shape;
  }

 private:
  ParameterMaker make_;
  Conv2d conv_;
  BatchNorm2d bn_;
};

/// Two 3x3 convolutions beside the identity, or beside a 1x1 convolution where the shape changes.
class BasicBlockLayer final : public Layer {
 public:
  BasicBlockLayer(const std::string& name, int64_t in_channels, int64_t out_channels,
                  int64_t stride, LayerIndex layer, int64_t seed)
      : Layer(name),
        make_(seed, layer, parameters_, buffers_),
        conv1_(name + ".conv1", {in_channels, out_channels, 3, stride, 1}, make_),
        bn1_(name + ".bn1", out_channels, make_),
        conv2_(name + ".conv2", {out_channels, out_channels, 3, 1, 1}, make_),
        bn2_(name + ".bn2", out_channels, make_) {
    if (stride == 1 && in_channels == out_channels) return;
    const Conv2d::Options project{in_channels, out_channels, /*kernel=*/1, stride, /*padding=*/0};
    downsample_conv_.emplace(name + ".downsample.0", project, make_);
    downsample_bn_.emplace(name + ".downsample.1", out_channels, make_);
  }

  at::Tensor Forward(const at::Tensor& x, Mode mode) override {
    at::Tensor y = bn1_.Forward(conv1_.Forward(x), mode);
    y.relu_();
    y = bn2_.Forward(conv2_.Forward(y), mode);
    y.add_(downsample_conv_ ? downsample_bn_->Forward(downsample_conv_->Forward(x), mode) : x);
    return y.relu_();
  }

  std::vector<int64_t> OutputShape(const std::vector<int64_t>& input_shape) const override {
    return conv1_.OutputShape(input_shape);
  }

 private:
  ParameterMaker make_;
  Conv2d conv1_;
  BatchNorm2d bn1_;
  Conv2d conv2_;
  BatchNorm2d bn2_;
  std::optional<Conv2d> downsample_conv_;
  std::optional<BatchNorm2d> downsample_bn_;
};

}  // namespace

std::unique_ptr<ModelSpec> MakeResnet18(const std::vector<int64_t>& sample_shape,
                                        int64_t num_classes) {
  std::vector<LayerRow> rows;
  rows.push_back({"stem",
                  [in = sample_shape[0]](const std::string& name, LayerIndex layer,
                                         int64_t seed) -> std::unique_ptr<Layer> {
                    return std::make_unique<StemLayer>(name, in, layer, seed);
                  }});
  int64_t in = kStemChannels;
  for (const int64_t out : kGroupChannels) {
    const size_t group = 1 + (rows.size() - 1) / kBlocksPerGroup;
    for (int block = 0; block < kBlocksPerGroup; ++block) {
      const int64_t stride = block == 0 && group > 1 ? 2 : 1;
      rows.push_back({absl::StrCat("layer", group, ".", block),
                      [in, out, stride](const std::string& name, LayerIndex layer,
                                        int64_t seed) -> std::unique_ptr<Layer> {
                        return std::make_unique<BasicBlockLayer>(name, in, out, stride, layer,
                                                                 seed);
                      }});
      in = out;
    }
  }
  rows.push_back(HeadRow("head", "fc", in, num_classes));
  return std::make_unique<LayerList>(std::move(rows));
}

}  // namespace smartpipe
