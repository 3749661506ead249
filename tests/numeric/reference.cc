#include "tests/numeric/reference.h"

#include <memory>

#include "ATen/core/grad_mode.h"
#include "tests/numeric/rank_threads.h"
#include "worker/data/sampler.h"
#include "worker/engine/compute_device.h"
#include "worker/engine/compute_settings.h"
#include "worker/model/layer_state.h"
#include "worker/model/optimizer.h"

namespace smartpipe {
namespace {

std::string Sha256(const Layer& layer) {
  WeightsDigest digest;
  digest.Add(layer);
  return digest.Finish();
}

}  // namespace

ReferenceResult TrainReference(const RunConfig& config, const ModelSpec& model,
                               const Dataset& dataset, int64_t num_steps,
                               const std::vector<std::pair<int64_t, int64_t>>& frontiers) {
  const at::Device device = UseTestDevice();
  SetUpComputing(config.worker.threads, device);
  std::vector<std::unique_ptr<Layer>> layers;
  std::vector<std::unique_ptr<LayerOptimizer>> optimizers;
  for (LayerIndex layer(0); layer.value() < model.num_layers(); ++layer) {
    layers.push_back(model.MakeLayer(layer, config.train.seed));
    MoveToDevice(*layers.back(), device);
    optimizers.push_back(MakeOptimizer(config.optim, *layers.back()).value());
  }
  ReferenceResult result;
  result.frozen_sha256.resize(layers.size());
  Sampler sampler(config.train.seed, dataset.size(Split::kTrain), config.train.batch_size,
                  config.train.microbatches);
  const double share = 1.0 / static_cast<double>(config.train.microbatches);
  size_t frontier = 0;
  for (Step step(0); step.value() < num_steps; ++step) {
    for (const auto& [change_step, next_frontier] : frontiers) {
      if (change_step != step.value()) continue;
      for (; frontier < static_cast<size_t>(next_frontier); ++frontier) {
        result.frozen_sha256[frontier] = Sha256(*layers[frontier]);
      }
      for (; frontier > static_cast<size_t>(next_frontier); --frontier) {
        optimizers[frontier - 1] = MakeOptimizer(config.optim, *layers[frontier - 1]).value();
      }
    }
    double loss_sum = 0;
    for (MicrobatchIndex microbatch(0); microbatch.value() < config.train.microbatches;
         ++microbatch) {
      const std::vector<int64_t> indices = sampler.Microbatch(step, microbatch);
      at::Tensor x = ToDevice(dataset.Images(Split::kTrain, indices), device);
      for (size_t i = 0; i < layers.size(); ++i) {
        at::AutoGradMode record(i >= frontier);
        x = layers[i]->Forward(x, i >= frontier ? Mode::kTrain : Mode::kEval);
      }
      const at::Tensor loss =
          CrossEntropy(x, ToDevice(dataset.Labels(Split::kTrain, indices), device));
      loss_sum += share * loss.item<double>();
      loss.mul(share).backward();
    }
    result.losses.push_back(loss_sum);
    for (size_t i = frontier; i < layers.size(); ++i) {
      std::vector<at::Tensor> gradients;
      for (const NamedTensor& parameter : layers[i]->parameters())
        gradients.push_back(parameter.tensor.grad().clone());
      for (const NamedTensor& parameter : layers[i]->parameters()) {
        at::Tensor tensor = parameter.tensor;
        tensor.mutable_grad().reset();
      }
      optimizers[i]->Step(gradients);
    }
  }
  WeightsDigest digest;
  for (const std::unique_ptr<Layer>& layer : layers) {
    digest.Add(*layer);
    result.layer_sha256.push_back(Sha256(*layer));
  }
  result.weights_sha256 = digest.Finish();
  return result;
}

}  // namespace smartpipe
