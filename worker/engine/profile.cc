#include "worker/engine/profile.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "ATen/ops/empty.h"
#include "ATen/ops/ones_like.h"
#include "services/base/status_macros.h"
#include "worker/data/keyed_random.h"
#include "worker/engine/compute_device.h"

namespace smartpipe {
namespace {

constexpr int kWarmUpSteps = 1;
constexpr int kTimedSteps = 2;
constexpr int64_t kMicrobatchesMax = 3;  // most of them add to a gradient, as in a run

}  // namespace

absl::StatusOr<std::vector<LayerCost>> ProfileLayers(const EngineContext& context) {
  const RunConfig& config = *context.config;
  std::vector<int64_t> shape = context.edge_shapes[0];
  shape.insert(shape.begin(), config.train.batch_size / config.train.microbatches);
  const int64_t num_microbatches = std::min(config.train.microbatches, kMicrobatchesMax);
  at::Tensor x = at::empty(shape, at::kFloat);
  x.normal_(0, 1, KeyedGenerator(config.train.seed, RandomPurpose::kSynthetic, -1));
  x = ToDevice(x, context.device);
  std::vector<LayerCost> costs;
  for (LayerIndex index(0); index.value() < context.model->num_layers(); ++index) {
    SP_ASSIGN_OR_RETURN(std::unique_ptr<LayerRunner> runner, MakeLayerRunner(context, index));
    at::Tensor output;
    for (int step = 0; step < kWarmUpSteps + kTimedSteps; ++step) {
      if (step == kWarmUpSteps) runner->TakeCost();  // drops the warm-up's times
      for (int64_t m = 0; m < num_microbatches; ++m) {
        output = runner->Forward(MicrobatchIndex(m), x, /*input_grad=*/true);
        runner->Backward(MicrobatchIndex(m), at::ones_like(output), /*probe=*/true);
      }
      runner->Optimize();
    }
    costs.push_back(runner->TakeCost());
    x = std::move(output);
  }
  return costs;
}

}  // namespace smartpipe
