#include "worker/engine/profile.h"

#include <memory>
#include <utility>

#include "ATen/ops/empty.h"
#include "ATen/ops/ones_like.h"
#include "services/base/status_macros.h"
#include "worker/data/keyed_random.h"

namespace smartpipe {
namespace {

constexpr int kWarmUpRounds = 2;
constexpr int kTimedRounds = 4;

}  // namespace

absl::StatusOr<std::vector<LayerCost>> ProfileLayers(const EngineContext& context) {
  const RunConfig& config = *context.config;
  std::vector<int64_t> shape = context.edge_shapes[0];
  shape.insert(shape.begin(), config.train.batch_size / config.train.microbatches);
  at::Tensor x = at::empty(shape, at::kFloat);
  x.normal_(0, 1, KeyedGenerator(config.train.seed, RandomPurpose::kSynthetic, -1));
  std::vector<LayerCost> costs;
  for (LayerIndex index(0); index.value() < context.model->num_layers(); ++index) {
    SP_ASSIGN_OR_RETURN(std::unique_ptr<LayerRunner> runner, MakeLayerRunner(context, index));
    at::Tensor output;
    for (int round = 0; round < kWarmUpRounds + kTimedRounds; ++round) {
      if (round == kWarmUpRounds) runner->TakeCost();  // drops the warm-up's times
      output = runner->Forward(MicrobatchIndex(0), x, /*input_grad=*/true);
      runner->Backward(MicrobatchIndex(0), at::ones_like(output), /*probe=*/true);
      runner->Optimize();
    }
    costs.push_back(runner->TakeCost());
    x = std::move(output);
  }
  return costs;
}

}  // namespace smartpipe
