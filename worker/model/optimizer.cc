#include "worker/model/optimizer.h"

#include <cstddef>
#include <utility>

#include "ATen/ops/full.h"
#include "absl/strings/str_cat.h"
#include "services/base/nearest_name.h"
#include "services/base/status_macros.h"
#include "torch/optim/adamw.h"
#include "torch/optim/sgd.h"

namespace smartpipe {
namespace {

using torch::optim::AdamWParamState;
using torch::optim::SGDParamState;

std::vector<at::Tensor> Tensors(const std::vector<NamedTensor>& named) {
  std::vector<at::Tensor> tensors;
  for (const NamedTensor& entry : named) tensors.push_back(entry.tensor);
  return tensors;
}

/// One optimizer of torch::optim over the parameters of one layer; the subclasses know its state.
class TorchOptimizer : public LayerOptimizer {
 public:
  void Step(const std::vector<at::Tensor>& gradients) override {
    TORCH_CHECK(gradients.size() == parameters_.size(), "expected ", parameters_.size(),
                " gradients, got ", gradients.size());
    for (size_t i = 0; i < gradients.size(); ++i) {
      parameters_[i].tensor.mutable_grad() = gradients[i];
    }
    optimizer_->step();
    for (NamedTensor& parameter : parameters_) parameter.tensor.mutable_grad().reset();
  }

  std::vector<NamedTensor> State() const override {
    std::vector<NamedTensor> state;
    for (const NamedTensor& parameter : parameters_) {
      const auto found = optimizer_->state().find(Key(parameter));
      if (found == optimizer_->state().end()) continue;
      for (NamedTensor& entry : Export(*found->second)) {
        state.push_back({absl::StrCat(parameter.name, ".", entry.name), entry.tensor});
      }
    }
    return state;
  }

  absl::Status LoadState(const std::vector<NamedTensor>& state) override {
    if (state.empty()) {
      optimizer_->state().clear();
      return absl::OkStatus();
    }
    const size_t num_entries = entry_names_.size();
    if (state.size() != parameters_.size() * num_entries) {
      return absl::InvalidArgumentError(absl::StrCat("optimizer state has ", state.size(),
                                                     " tensors, expected ",
                                                     parameters_.size() * num_entries));
    }
    // Checked in full before anything changes.
    for (size_t i = 0; i < state.size(); ++i) {
      const NamedTensor& parameter = parameters_[i / num_entries];
      SP_RETURN_IF_ERROR(CheckEntry(state[i], parameter, entry_names_[i % num_entries]));
    }
    for (size_t i = 0; i < parameters_.size(); ++i) {
      std::vector<at::Tensor> entries;
      for (size_t k = 0; k < num_entries; ++k) {
        entries.push_back(state[i * num_entries + k].tensor.clone());
      }
      optimizer_->state()[Key(parameters_[i])] = Import(entries);
    }
    return absl::OkStatus();
  }

  int64_t state_bytes() const override {
    int64_t bytes = 0;
    for (const NamedTensor& entry : State()) bytes += static_cast<int64_t>(entry.tensor.nbytes());
    return bytes;
  }

 protected:
  using ParamState = torch::optim::OptimizerParamState;

  /// `entry_names` are the names in Export's order; "step" is an int64 scalar, the others are like
  /// their parameter.
  TorchOptimizer(const Layer& layer, std::unique_ptr<torch::optim::Optimizer> optimizer,
                 std::vector<std::string> entry_names)
      : parameters_(layer.parameters()),
        optimizer_(std::move(optimizer)),
        entry_names_(std::move(entry_names)) {}

  /// The tensors share the state's memory.
  virtual std::vector<NamedTensor> Export(const ParamState& state) const = 0;
  virtual std::unique_ptr<ParamState> Import(const std::vector<at::Tensor>& entries) const = 0;

 private:
  static void* Key(const NamedTensor& parameter) { return parameter.tensor.unsafeGetTensorImpl(); }

  absl::Status CheckEntry(const NamedTensor& entry, const NamedTensor& parameter,
                          const std::string& entry_name) const {
    const bool is_step = entry_name == "step";
    const at::IntArrayRef shape = is_step ? at::IntArrayRef() : parameter.tensor.sizes();
    const at::ScalarType dtype = is_step ? at::kLong : parameter.tensor.scalar_type();
    if (entry.name == absl::StrCat(parameter.name, ".", entry_name) &&
        entry.tensor.sizes() == shape && entry.tensor.scalar_type() == dtype) {
      return absl::OkStatus();
    }
    return absl::InvalidArgumentError(absl::StrCat("optimizer state has \"", entry.name,
                                                   "\" where \"", parameter.name, ".", entry_name,
                                                   "\" of the right type and shape is expected"));
  }

  std::vector<NamedTensor> parameters_;
  std::unique_ptr<torch::optim::Optimizer> optimizer_;
  const std::vector<std::string> entry_names_;
};

class Sgd final : public TorchOptimizer {
 public:
  Sgd(const OptimConfig& config, const Layer& layer)
      : TorchOptimizer(layer,
                       std::make_unique<torch::optim::SGD>(Tensors(layer.parameters()),
                                                           torch::optim::SGDOptions(config.lr)
                                                               .momentum(config.momentum)
                                                               .weight_decay(config.weight_decay)),
                       {"momentum_buffer"}) {}

 private:
  std::vector<NamedTensor> Export(const ParamState& state) const override {
    return {{"momentum_buffer", static_cast<const SGDParamState&>(state).momentum_buffer()}};
  }
  std::unique_ptr<ParamState> Import(const std::vector<at::Tensor>& entries) const override {
    auto state = std::make_unique<SGDParamState>();
    state->momentum_buffer(entries[0]);
    return state;
  }
};

class AdamW final : public TorchOptimizer {
 public:
  AdamW(const OptimConfig& config, const Layer& layer)
      : TorchOptimizer(layer,
                       std::make_unique<torch::optim::AdamW>(
                           Tensors(layer.parameters()),
                           torch::optim::AdamWOptions(config.lr).weight_decay(config.weight_decay)),
                       {"step", "exp_avg", "exp_avg_sq"}) {}

 private:
  std::vector<NamedTensor> Export(const ParamState& state) const override {
    const auto& adamw = static_cast<const AdamWParamState&>(state);
    return {{"step", at::full({}, adamw.step(), at::kLong)},
            {"exp_avg", adamw.exp_avg()},
            {"exp_avg_sq", adamw.exp_avg_sq()}};
  }
  std::unique_ptr<ParamState> Import(const std::vector<at::Tensor>& entries) const override {
    auto state = std::make_unique<AdamWParamState>();
    state->step(entries[0].item<int64_t>());
    state->exp_avg(entries[1]);
    state->exp_avg_sq(entries[2]);
    return state;
  }
};

struct OptimizerRow {
  const char* name;
  std::unique_ptr<LayerOptimizer> (*make)(const OptimConfig& config, const Layer& layer);
};

template <typename T>
std::unique_ptr<LayerOptimizer> Make(const OptimConfig& config, const Layer& layer) {
  return std::make_unique<T>(config, layer);
}

constexpr OptimizerRow kOptimizers[] = {{"sgd", Make<Sgd>}, {"adamw", Make<AdamW>}};

}  // namespace

absl::StatusOr<std::unique_ptr<LayerOptimizer>> MakeOptimizer(const OptimConfig& config,
                                                              const Layer& layer) {
  std::vector<std::string> names;
  for (const OptimizerRow& row : kOptimizers) {
    if (config.name == row.name) return row.make(config, layer);
    names.push_back(row.name);
  }
  return absl::InvalidArgumentError(absl::StrCat("unknown optimizer \"", config.name,
                                                 "\": did you mean \"",
                                                 NearestName(config.name, names), "\"?"));
}

}  // namespace smartpipe
