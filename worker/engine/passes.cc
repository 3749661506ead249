// Passes over the whole pipeline outside the step: evaluation and the final gathering of layers.
#include <algorithm>
#include <numeric>
#include <utility>

#include "ATen/core/Tensor.h"
#include "ATen/ops/argmax.h"
#include "services/base/status_macros.h"
#include "worker/engine/compute_device.h"
#include "worker/engine/interpreter.h"
#include "worker/model/layer_state.h"

namespace smartpipe {
namespace {

constexpr int64_t kEvalBatchSize =
    250;  // samples forwarded at once; bounds memory, no effect on the score's meaning

}  // namespace

absl::StatusOr<std::optional<TestScore>> Interpreter::Evaluate() {
  SP_RETURN_IF_ERROR(Drain());
  const int64_t num_samples = context_.dataset->size(Split::kTest);
  auto batch_size = [&](int64_t begin) { return std::min(kEvalBatchSize, num_samples - begin); };
  auto batch_index = [](int64_t begin) {
    return MicrobatchIndex(static_cast<int32_t>(begin / kEvalBatchSize));
  };
  for (int64_t begin = 0; begin < num_samples; begin += kEvalBatchSize) {
    for (auto& [index, stage] : stages_) {
      if (stage.activation_inbox == nullptr) continue;
      SP_RETURN_IF_ERROR(stage.activation_inbox->Expect(
          index, batch_index(begin), BatchShape(stage.range.first_layer, batch_size(begin))));
    }
  }
  int64_t num_right = 0;
  double loss_sum = 0;
  for (int64_t begin = 0; begin < num_samples; begin += kEvalBatchSize) {
    std::vector<int64_t> indices(batch_size(begin));
    std::iota(indices.begin(), indices.end(), begin);
    at::Tensor x;
    for (auto& [index, stage] :
         stages_) {  // ascending, so a stage's neighbour on this rank has run before it
      if (index == StageIndex(0))
        x = ToDevice(context_.dataset->Images(Split::kTest, indices), context_.device);
      if (stage.activation_inbox != nullptr) {
        SP_ASSIGN_OR_RETURN(x, stage.activation_inbox->Take(index, batch_index(begin)));
      }
      for (LayerIndex layer = stage.range.first_layer; layer < stage.range.end_layer; ++layer) {
        x = layers_.at(layer)->Evaluate(x);
      }
      if (stage.activation_inbox != nullptr) SP_RETURN_IF_ERROR(stage.activation_inbox->Release());
      if (stage.activation_outbox != nullptr) SP_RETURN_IF_ERROR(stage.activation_outbox->Send(x));
      if (index.value() + 1 != plan_.num_stages()) continue;
      const at::Tensor labels =
          ToDevice(context_.dataset->Labels(Split::kTest, indices), context_.device);
      num_right += x.argmax(1).eq(labels).sum().item<int64_t>();
      loss_sum += CrossEntropy(x, labels).item<double>() * static_cast<double>(indices.size());
    }
  }
  SP_RETURN_IF_ERROR(Drain());
  if (!is_last()) return std::nullopt;
  return TestScore{.accuracy = static_cast<double>(num_right) / static_cast<double>(num_samples),
                   .loss = loss_sum / static_cast<double>(num_samples)};
}

absl::Status Interpreter::Gather(
    const std::function<absl::Status(LayerIndex, std::vector<NamedTensor>)>& keep) {
  SP_RETURN_IF_ERROR(Drain());
  const int32_t num_layers = context_.model->num_layers();
  const int rank = context_.transport->rank().value();
  const int last = rank_of(plan_.num_stages() - 1);
  for (LayerIndex layer(0); layer.value() < num_layers; ++layer) {
    const int owner = rank_of(StageOfLayer(plan_.cuts, layer).value());
    std::vector<NamedTensor> tensors;
    if (owner == rank) {
      const Layer& own = layers_.at(layer)->layer();
      tensors = own.parameters();
      tensors.insert(tensors.end(), own.buffers().begin(), own.buffers().end());
      if (owner != last)
        SP_RETURN_IF_ERROR(SendPacked(*context_.transport, Rank(last), PackTensors(tensors)));
    } else if (rank == last) {
      SP_ASSIGN_OR_RETURN(const at::Tensor packed, ReceivePacked(*context_.transport, Rank(owner)));
      SP_ASSIGN_OR_RETURN(tensors, UnpackTensors(packed));
    }
    if (rank == last) SP_RETURN_IF_ERROR(keep(layer, std::move(tensors)));
  }
  return absl::OkStatus();
}

}  // namespace smartpipe
