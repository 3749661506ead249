// The layer lists: names, shapes, initialisation, and the contract at layer edges.
#include "worker/model/model.h"

#include <cmath>
#include <set>
#include <string>
#include <vector>

#include "ATen/CPUGeneratorImpl.h"
#include "ATen/Parallel.h"
#include "ATen/core/grad_mode.h"
#include "ATen/ops/empty.h"
#include "ATen/ops/zeros.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/config/run_config.h"
#include "tests/unit/model/model_util.h"
#include "torch/csrc/autograd/autograd.h"
#include "worker/data/dataset.h"
#include "worker/data/sampler.h"
#include "worker/model/optimizer.h"

namespace smartpipe {

at::Tensor testutil::Normal(const std::vector<int64_t>& shape, int64_t key) {
  return at::empty(shape, at::kFloat)
      .normal_(0, 1, KeyedGenerator(7, RandomPurpose::kSynthetic, key));
}

namespace {

using testing::HasSubstr;
using testutil::Digest;
using testutil::MakeLayers;
using testutil::Normal;
using testutil::SameBytes;

// The state_dict of torchvision.models.resnet18, in its order.
constexpr char kTorchvisionResnet18[] =
    "conv1.weight bn1.weight bn1.bias bn1.running_mean bn1.running_var bn1.num_batches_tracked "
    "layer1.0.conv1.weight layer1.0.bn1.weight layer1.0.bn1.bias layer1.0.bn1.running_mean "
    "layer1.0.bn1.running_var layer1.0.bn1.num_batches_tracked layer1.0.conv2.weight "
    "layer1.0.bn2.weight layer1.0.bn2.bias layer1.0.bn2.running_mean layer1.0.bn2.running_var "
    "layer1.0.bn2.num_batches_tracked layer1.1.conv1.weight layer1.1.bn1.weight "
    "layer1.1.bn1.bias layer1.1.bn1.running_mean layer1.1.bn1.running_var "
    "layer1.1.bn1.num_batches_tracked layer1.1.conv2.weight layer1.1.bn2.weight "
    "layer1.1.bn2.bias layer1.1.bn2.running_mean layer1.1.bn2.running_var "
    "layer1.1.bn2.num_batches_tracked layer2.0.conv1.weight layer2.0.bn1.weight "
    "layer2.0.bn1.bias layer2.0.bn1.running_mean layer2.0.bn1.running_var "
    "layer2.0.bn1.num_batches_tracked layer2.0.conv2.weight layer2.0.bn2.weight "
    "layer2.0.bn2.bias layer2.0.bn2.running_mean layer2.0.bn2.running_var "
    "layer2.0.bn2.num_batches_tracked layer2.0.downsample.0.weight layer2.0.downsample.1.weight "
    "layer2.0.downsample.1.bias layer2.0.downsample.1.running_mean "
    "layer2.0.downsample.1.running_var layer2.0.downsample.1.num_batches_tracked "
    "layer2.1.conv1.weight layer2.1.bn1.weight layer2.1.bn1.bias layer2.1.bn1.running_mean "
    "layer2.1.bn1.running_var layer2.1.bn1.num_batches_tracked layer2.1.conv2.weight "
    "layer2.1.bn2.weight layer2.1.bn2.bias layer2.1.bn2.running_mean layer2.1.bn2.running_var "
    "layer2.1.bn2.num_batches_tracked layer3.0.conv1.weight layer3.0.bn1.weight "
    "layer3.0.bn1.bias layer3.0.bn1.running_mean layer3.0.bn1.running_var "
    "layer3.0.bn1.num_batches_tracked layer3.0.conv2.weight layer3.0.bn2.weight "
    "layer3.0.bn2.bias layer3.0.bn2.running_mean layer3.0.bn2.running_var "
    "layer3.0.bn2.num_batches_tracked layer3.0.downsample.0.weight layer3.0.downsample.1.weight "
    "layer3.0.downsample.1.bias layer3.0.downsample.1.running_mean "
    "layer3.0.downsample.1.running_var layer3.0.downsample.1.num_batches_tracked "
    "layer3.1.conv1.weight layer3.1.bn1.weight layer3.1.bn1.bias layer3.1.bn1.running_mean "
    "layer3.1.bn1.running_var layer3.1.bn1.num_batches_tracked layer3.1.conv2.weight "
    "layer3.1.bn2.weight layer3.1.bn2.bias layer3.1.bn2.running_mean layer3.1.bn2.running_var "
    "layer3.1.bn2.num_batches_tracked layer4.0.conv1.weight layer4.0.bn1.weight "
    "layer4.0.bn1.bias layer4.0.bn1.running_mean layer4.0.bn1.running_var "
    "layer4.0.bn1.num_batches_tracked layer4.0.conv2.weight layer4.0.bn2.weight "
    "layer4.0.bn2.bias layer4.0.bn2.running_mean layer4.0.bn2.running_var "
    "layer4.0.bn2.num_batches_tracked layer4.0.downsample.0.weight layer4.0.downsample.1.weight "
    "layer4.0.downsample.1.bias layer4.0.downsample.1.running_mean "
    "layer4.0.downsample.1.running_var layer4.0.downsample.1.num_batches_tracked "
    "layer4.1.conv1.weight layer4.1.bn1.weight layer4.1.bn1.bias layer4.1.bn1.running_mean "
    "layer4.1.bn1.running_var layer4.1.bn1.num_batches_tracked layer4.1.conv2.weight "
    "layer4.1.bn2.weight layer4.1.bn2.bias layer4.1.bn2.running_mean layer4.1.bn2.running_var "
    "layer4.1.bn2.num_batches_tracked "
    "fc.weight fc.bias";

// As a worker runs: one thread, which is also the fastest on a busy machine.
class OneThread : public testing::Environment {
  void SetUp() override { at::set_num_threads(1); }
};
const testing::Environment* const kOneThread = testing::AddGlobalTestEnvironment(new OneThread);

struct ModelCase {
  std::string name;
  std::vector<int64_t> sample_shape;
  int32_t num_layers;
};

void PrintTo(const ModelCase& model, std::ostream* out) {
  *out << model.name << " " << absl::StrJoin(model.sample_shape, "x");
}

class ModelTest : public testing::TestWithParam<ModelCase> {
 protected:
  std::unique_ptr<ModelSpec> model_ =
      MakeModel(GetParam().name, GetParam().sample_shape, 10).value();

  at::Tensor Input(int64_t n) const {
    std::vector<int64_t> shape = GetParam().sample_shape;
    shape.insert(shape.begin(), n);
    return Normal(shape, 1);
  }
};

TEST_P(ModelTest, LayersAndEdges) {
  ASSERT_EQ(model_->num_layers(), GetParam().num_layers);
  const auto layers = MakeLayers(*model_, 1);
  const auto shapes = EdgeShapes(layers, GetParam().sample_shape);
  ASSERT_EQ(shapes.size(), layers.size() + 1);
  EXPECT_EQ(shapes.back(), std::vector<int64_t>{10});
  std::set<std::string> layer_names, names;
  size_t num_names = 0;
  at::Tensor x = Input(2);
  for (size_t i = 0; i < layers.size(); ++i) {
    EXPECT_EQ(layers[i]->name(), model_->layer_name(LayerIndex(static_cast<int32_t>(i))));
    layer_names.insert(layers[i]->name());
    for (const auto* tensors : {&layers[i]->parameters(), &layers[i]->buffers()}) {
      for (const NamedTensor& named : *tensors) {
        names.insert(named.name);
        ++num_names;
        EXPECT_EQ(named.tensor.requires_grad(), tensors == &layers[i]->parameters()) << named.name;
        EXPECT_TRUE(named.tensor.is_leaf() && named.tensor.is_contiguous()) << named.name;
      }
    }
    x = layers[i]->Forward(x.detach(), Mode::kTrain);
    EXPECT_TRUE(x.is_contiguous()) << layers[i]->name();
    EXPECT_EQ(x.sizes().slice(1).vec(), shapes[i + 1]) << layers[i]->name();
  }
  EXPECT_EQ(layer_names.size(), layers.size());
  EXPECT_EQ(names.size(), num_names);
}

TEST_P(ModelTest, SameSeedSameBytes) {
  const auto layers = MakeLayers(*model_, 1);
  // Made alone and last to first, as a worker that owns only some of them may do.
  for (int32_t i = model_->num_layers() - 1; i >= 0; --i) {
    EXPECT_EQ(Digest(*model_->MakeLayer(LayerIndex(i), 1)),
              Digest(*layers[static_cast<size_t>(i)]));
    EXPECT_NE(Digest(*model_->MakeLayer(LayerIndex(i), 2)),
              Digest(*layers[static_cast<size_t>(i)]));
  }
}

TEST_P(ModelTest, InitialisationHasTheRightSpread) {
  for (const auto& layer : MakeLayers(*model_, 1)) {
    for (const NamedTensor& named : layer->parameters()) {
      if (named.tensor.dim() == 4) {
        const double fan_out =
            static_cast<double>(named.tensor.size(0) * named.tensor.size(2) * named.tensor.size(3));
        const double n = static_cast<double>(named.tensor.numel());
        EXPECT_NEAR(named.tensor.std().item<double>() / std::sqrt(2 / fan_out), 1, 4 / std::sqrt(n))
            << named.name;
      } else if (named.tensor.dim() == 2) {
        const double bound = 1 / std::sqrt(static_cast<double>(named.tensor.size(1)));
        EXPECT_LE(named.tensor.abs().max().item<double>(), bound);
        EXPECT_GT(named.tensor.abs().max().item<double>(), 0.95 * bound);
      }
    }
  }
}

// The gradient that one layer hands to the layer before it must be contiguous by itself, so that an
// engine that keeps one graph over several layers has the same bytes.
TEST_P(ModelTest, OneGraphPerLayerGivesTheBytesOfOneGraph) {
  const auto layers = MakeLayers(*model_, 1), whole = MakeLayers(*model_, 1);
  const at::Tensor labels = at::zeros({4}, at::kLong);
  at::Tensor x = Input(4), y = x;
  std::vector<at::Tensor> inputs, outputs;
  for (size_t i = 0; i < layers.size(); ++i) {
    inputs.push_back(x.detach().requires_grad_(true));
    x = layers[i]->Forward(inputs.back(), Mode::kTrain);
    outputs.push_back(x);
    y = whole[i]->Forward(y, Mode::kTrain);
  }
  ASSERT_TRUE(SameBytes(x, y));
  CrossEntropy(y, labels).backward();
  at::Tensor logits = x.detach().requires_grad_(true);
  at::Tensor gradient = torch::autograd::grad({CrossEntropy(logits, labels)}, {logits})[0];
  for (size_t i = layers.size(); i-- > 0;) {
    std::vector<at::Tensor> wanted = {inputs[i]};
    for (const NamedTensor& named : layers[i]->parameters()) wanted.push_back(named.tensor);
    const auto gradients = torch::autograd::grad({outputs[i]}, wanted, {gradient});
    EXPECT_TRUE(gradients[0].is_contiguous()) << layers[i]->name();
    for (size_t p = 1; p < gradients.size(); ++p) {
      const NamedTensor& parameter = whole[i]->parameters()[p - 1];
      EXPECT_TRUE(SameBytes(gradients[p], parameter.tensor.grad())) << parameter.name;
    }
    gradient = gradients[0];
  }
}

TEST_P(ModelTest, EvalModeChangesNothingAndTrainModeCounts) {
  for (const auto& layer : MakeLayers(*model_, 1)) {
    if (layer->buffers().empty()) continue;
    const at::Tensor counter = layer->buffers()[2].tensor;
    EXPECT_THAT(layer->buffers()[2].name, testing::EndsWith(".num_batches_tracked"));
    const auto shapes = EdgeShapes(MakeLayers(*model_, 1), GetParam().sample_shape);
    std::vector<int64_t> shape = {2};
    for (LayerIndex i(0); i.value() < model_->num_layers(); ++i) {
      if (model_->layer_name(i) != layer->name()) continue;
      const std::vector<int64_t>& edge = shapes[static_cast<size_t>(i.value())];
      shape.insert(shape.end(), edge.begin(), edge.end());
    }
    const at::Tensor x = Normal(shape, 2);
    const std::string before = Digest(*layer);
    {
      at::NoGradGuard no_grad;
      EXPECT_FALSE(layer->Forward(x, Mode::kEval).requires_grad());
    }
    EXPECT_EQ(Digest(*layer), before);
    layer->Forward(x, Mode::kTrain);
    EXPECT_NE(Digest(*layer), before);
    EXPECT_EQ(counter.item<int64_t>(), 1);
  }
}

INSTANTIATE_TEST_SUITE_P(All, ModelTest,
                         testing::Values(ModelCase{"convnet", {1, 28, 28}, 7},
                                         ModelCase{"convnet", {3, 16, 20}, 7},
                                         ModelCase{"resnet18", {3, 64, 64}, 10},
                                         ModelCase{"resnet18", {1, 28, 28}, 10},
                                         ModelCase{"blocknet", {3, 32, 32}, 26}));

TEST(Resnet18Test, HasTorchvisionsNamesAndShapes) {
  const auto layers = MakeLayers(*MakeModel("resnet18", {3, 224, 224}, 1000).value(), 1);
  std::vector<std::string> names;
  int64_t num_values = 0;
  for (const auto& layer : layers) {
    for (const NamedTensor& named : layer->parameters()) {
      names.push_back(named.name);
      num_values += named.tensor.numel();
    }
    for (const NamedTensor& named : layer->buffers()) names.push_back(named.name);
  }
  const std::vector<std::string> torchvision = absl::StrSplit(kTorchvisionResnet18, ' ');
  EXPECT_EQ(torchvision.size(), 122u);
  EXPECT_THAT(names, testing::UnorderedElementsAreArray(torchvision));
  EXPECT_EQ(num_values, 11'689'512);
  const auto shapes = EdgeShapes(layers, {3, 224, 224});
  EXPECT_THAT(shapes[1], testing::ElementsAre(64, 56, 56));
  EXPECT_THAT(shapes[9], testing::ElementsAre(512, 7, 7));
}

TEST(BlocknetTest, IsTheBenchmarksNetwork) {
  const auto layers = MakeLayers(*MakeModel("blocknet", {3, 32, 32}, 10).value(), 1);
  const auto shapes = EdgeShapes(layers, {3, 32, 32});
  for (size_t i = 1; i <= 25; ++i) EXPECT_THAT(shapes[i], testing::ElementsAre(64, 16, 16));
  EXPECT_EQ(layers[1]->parameters()[0].tensor.sizes(), at::IntArrayRef({64, 64, 3, 3}));
}

TEST(MakeModelTest, RefusesWhatItCannotBuild) {
  const auto message = [](const std::string& name, const std::vector<int64_t>& shape,
                          int64_t num_classes) {
    const auto model = MakeModel(name, shape, num_classes);
    EXPECT_EQ(model.status().code(), absl::StatusCode::kInvalidArgument);
    return std::string(model.status().message());
  };
  EXPECT_THAT(message("resnet-18", {3, 32, 32}, 10), HasSubstr("did you mean \"resnet18\"?"));
  EXPECT_THAT(message("convnet", {1, 28, 15}, 10), HasSubstr("at least 16, not [1, 28, 15]"));
  EXPECT_THAT(message("convnet", {784}, 10), HasSubstr("not [784]"));
  EXPECT_THAT(message("convnet", {1, 28, 28}, 1), HasSubstr("at least 2 classes"));
}

TEST(MakeModelTest, KnowsTheConfigsNames) {
  for (const std::string& name : kModelNames)
    EXPECT_TRUE(MakeModel(name, {3, 32, 32}, 10).ok()) << name;
}

TEST(CrossEntropyTest, IsTheMeanOverTheMicrobatch) {
  const at::Tensor logits = Normal({3, 5}, 3), labels = at::zeros({3}, at::kLong);
  labels[1] = 4;
  double sum = 0;
  for (int64_t i = 0; i < 3; ++i) {
    double normaliser = 0;
    for (int64_t k = 0; k < 5; ++k) normaliser += std::exp(logits[i][k].item<double>());
    sum -= logits[i][labels[i].item<int64_t>()].item<double>() - std::log(normaliser);
  }
  EXPECT_NEAR(CrossEntropy(logits, labels).item<double>(), sum / 3, 1e-6);
}

// Whatever the worker's data and model folders do, Torch's default generator stays untouched.
TEST(DefaultGeneratorTest, IsNeverUsed) {
  const at::Generator& generator = at::detail::getDefaultCPUGenerator();
  const at::Tensor before = generator.get_state();
  RunConfig config;
  config.data = {.name = "synthetic", .path = "", .limit_train = 16, .limit_test = 8};
  const auto dataset = OpenDataset(config).value();
  Sampler sampler(1, 16, 4, 1);
  const std::vector<int64_t> indices = sampler.Microbatch(Step(3), MicrobatchIndex(0));
  for (const std::string& name : kModelNames) {
    for (const std::string& optimizer_name : kOptimizerNames) {
      const auto layers = MakeLayers(*MakeModel(name, dataset->sample_shape(), 10).value(), 1);
      at::Tensor x = dataset->Images(Split::kTrain, indices);
      for (const auto& layer : layers) x = layer->Forward(x, Mode::kTrain);
      CrossEntropy(x, dataset->Labels(Split::kTrain, indices)).backward();
      for (const auto& layer : layers) {
        config.optim.name = optimizer_name;
        std::vector<at::Tensor> gradients;
        for (const NamedTensor& named : layer->parameters())
          gradients.push_back(named.tensor.grad());
        MakeOptimizer(config.optim, *layer).value()->Step(gradients);
      }
    }
  }
  EXPECT_TRUE(SameBytes(generator.get_state(), before));
}

}  // namespace
}  // namespace smartpipe
