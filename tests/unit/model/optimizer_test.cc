// Optimizers against their definition in double precision, and the move of their state.
#include "worker/model/optimizer.h"

#include <cmath>
#include <string>
#include <vector>

#include "ATen/core/grad_mode.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/model/model_util.h"

namespace smartpipe {
namespace {

using testutil::Digest;
using testutil::Normal;
using testutil::SameBytes;

OptimConfig Config(const std::string& name, double momentum, double weight_decay) {
  return {.name = name, .lr = 0.05, .momentum = momentum, .weight_decay = weight_decay};
}

std::unique_ptr<Layer> MakeLayer() {
  return MakeModel("convnet", {1, 28, 28}, 10).value()->MakeLayer(LayerIndex(1), 1);
}

std::vector<at::Tensor> Gradients(const Layer& layer, int64_t step) {
  std::vector<at::Tensor> gradients;
  for (const NamedTensor& named : layer.parameters()) {
    const int64_t key = 100 * step + static_cast<int64_t>(gradients.size());
    gradients.push_back(Normal(named.tensor.sizes().vec(), key));
  }
  return gradients;
}

void Train(LayerOptimizer& optimizer, const Layer& layer, int64_t first_step, int64_t end_step) {
  for (int64_t step = first_step; step < end_step; ++step) optimizer.Step(Gradients(layer, step));
}

void CopyLayer(const Layer& from, Layer& to) {
  std::vector<NamedTensor> tensors = from.parameters();
  tensors.insert(tensors.end(), from.buffers().begin(), from.buffers().end());
  int64_t found = 0;
  ASSERT_TRUE(LoadIntoLayer(tensors, false, to, found).ok());
}

// One value under torch's definitions of SGD and AdamW.
struct Reference {
  OptimConfig config;
  double value;
  int64_t step = 0;
  double momentum_buffer = 0, exp_avg = 0, exp_avg_sq = 0;

  void Step(double gradient) {
    ++step;
    if (config.name == "sgd") {
      gradient += config.weight_decay * value;
      momentum_buffer = step == 1 ? gradient : config.momentum * momentum_buffer + gradient;
      value -= config.lr * momentum_buffer;
      return;
    }
    value -= config.lr * config.weight_decay * value;
    exp_avg = 0.9 * exp_avg + 0.1 * gradient;
    exp_avg_sq = 0.999 * exp_avg_sq + 0.001 * gradient * gradient;
    const double mean = exp_avg / (1 - std::pow(0.9, step));
    const double square = exp_avg_sq / (1 - std::pow(0.999, step));
    value -= config.lr * mean / (std::sqrt(square) + 1e-8);
  }
};

class OptimizerTest : public testing::TestWithParam<OptimConfig> {
 protected:
  std::unique_ptr<LayerOptimizer> Make(const Layer& layer) {
    return MakeOptimizer(GetParam(), layer).value();
  }
};

TEST_P(OptimizerTest, FollowsItsDefinition) {
  const auto layer = MakeLayer();
  const auto optimizer = Make(*layer);
  const at::Tensor weight = layer->parameters()[0].tensor.detach().flatten();
  std::vector<Reference> references;
  for (int64_t i = 0; i < 20; ++i)
    references.push_back({GetParam(), weight[i * 37].item<double>()});
  for (int64_t step = 0; step < 10; ++step) {
    const std::vector<at::Tensor> gradients = Gradients(*layer, step);
    const at::Tensor gradient = gradients[0].flatten();
    optimizer->Step(gradients);
    for (int64_t i = 0; i < 20; ++i) {
      Reference& reference = references[static_cast<size_t>(i)];
      reference.Step(gradient[i * 37].item<double>());
      EXPECT_NEAR(weight[i * 37].item<double>(), reference.value, 1e-5) << "step " << step;
    }
  }
  EXPECT_FALSE(layer->parameters()[0].tensor.grad().defined());
}

TEST_P(OptimizerTest, AMovedOptimizerGoesOnWithTheSameBytes) {
  const auto stays = MakeLayer(), moves = MakeLayer(), arrives = MakeLayer();
  const auto stayed = Make(*stays), moved = Make(*moves), arrived = Make(*arrives);
  Train(*stayed, *stays, 0, 7);
  Train(*moved, *moves, 0, 4);
  CopyLayer(*moves, *arrives);
  const auto state = UnpackTensors(PackTensors(moved->State())).value();
  ASSERT_TRUE(arrived->LoadState(state).ok());
  // The sender's later steps do not reach into what was handed over.
  Train(*moved, *moves, 4, 5);
  Train(*arrived, *arrives, 4, 7);
  EXPECT_EQ(Digest(*arrives), Digest(*stays));
  const auto expected = stayed->State(), found = arrived->State();
  ASSERT_EQ(found.size(), expected.size());
  for (size_t i = 0; i < found.size(); ++i) {
    EXPECT_EQ(found[i].name, expected[i].name);
    EXPECT_TRUE(SameBytes(found[i].tensor, expected[i].tensor)) << found[i].name;
  }
}

TEST_P(OptimizerTest, NoStateBeforeTheFirstStep) {
  const auto layer = MakeLayer();
  const auto optimizer = Make(*layer);
  EXPECT_TRUE(optimizer->State().empty());
  EXPECT_EQ(optimizer->state_bytes(), 0);
  Train(*optimizer, *layer, 0, 1);
  int64_t parameter_bytes = 0;
  for (const NamedTensor& named : layer->parameters())
    parameter_bytes += static_cast<int64_t>(named.tensor.nbytes());
  if (GetParam().name == "adamw") {
    EXPECT_EQ(optimizer->state_bytes(), 2 * parameter_bytes + 3 * 8);
  } else {
    EXPECT_EQ(optimizer->state_bytes(), GetParam().momentum > 0 ? parameter_bytes : 0);
  }
  ASSERT_TRUE(optimizer->LoadState({}).ok());
  EXPECT_TRUE(optimizer->State().empty());
}

TEST_P(OptimizerTest, AnotherLayersStateIsRefusedAndChangesNothing) {
  const auto layer = MakeLayer();
  const auto other = MakeModel("convnet", {1, 28, 28}, 10).value()->MakeLayer(LayerIndex(2), 1);
  const auto optimizer = Make(*layer), other_optimizer = Make(*other);
  Train(*optimizer, *layer, 0, 2);
  Train(*other_optimizer, *other, 0, 2);
  const auto before = optimizer->State();
  if (before.empty()) return;  // an optimizer without state has none to refuse
  std::vector<NamedTensor> torn = before;
  torn.pop_back();
  std::vector<NamedTensor> renamed = before;
  renamed.back().name = "other";
  for (const auto& state : {other_optimizer->State(), torn, renamed}) {
    EXPECT_EQ(optimizer->LoadState(state).code(), absl::StatusCode::kInvalidArgument);
  }
  const auto after = optimizer->State();
  for (size_t i = 0; i < before.size(); ++i)
    EXPECT_TRUE(SameBytes(before[i].tensor, after[i].tensor));
}

INSTANTIATE_TEST_SUITE_P(All, OptimizerTest,
                         testing::Values(Config("sgd", 0.9, 0), Config("sgd", 0.9, 0.01),
                                         Config("sgd", 0, 0), Config("sgd", 0, 0.01),
                                         Config("adamw", 0.9, 0), Config("adamw", 0.9, 0.1)),
                         [](const auto& info) {
                           return info.param.name +
                                  (info.param.momentum > 0 ? "Momentum" : "Plain") +
                                  (info.param.weight_decay > 0 ? "Decay" : "NoDecay");
                         });

TEST(MakeOptimizerTest, KnowsTheConfigsNamesAndNoOthers) {
  const auto layer = MakeLayer();
  for (const std::string& name : kOptimizerNames)
    EXPECT_TRUE(MakeOptimizer(Config(name, 0, 0), *layer).ok());
  const auto unknown = MakeOptimizer(Config("adam", 0, 0), *layer);
  EXPECT_EQ(unknown.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(unknown.status().message()),
              testing::HasSubstr("did you mean \"adamw\"?"));
}

}  // namespace
}  // namespace smartpipe
