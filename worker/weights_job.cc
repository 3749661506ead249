#include "worker/weights_job.h"

#include <memory>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "services/base/files.h"
#include "services/base/limits.h"
#include "services/base/status_macros.h"
#include "services/config/run_config.h"
#include "services/parameter_service/stored_checkpoints.h"
#include "worker/built_model.h"
#include "worker/catch_exceptions.h"
#include "worker/comm/transport.h"
#include "worker/engine/compute_settings.h"
#include "worker/engine/layer_runner.h"
#include "worker/model/layer_state.h"

namespace smartpipe {
namespace {

constexpr char kOutOfMemoryCure[] = "end other programs, or use a machine with more";
constexpr size_t kNameShownMax = 100;

// The weights of a checkpoint, layer by layer, and its step.
absl::StatusOr<Step> ReadRunWeights(const std::string& run_dir, std::optional<Step> step,
                                    std::vector<NamedTensor>& weights) {
  const auto take = [&](LayerIndex layer, const std::string& bytes) -> absl::Status {
    if (layer == LayerIndex(0)) weights.clear();
    SP_ASSIGN_OR_RETURN(std::vector<NamedTensor> state, UnpackTensors(bytes));
    for (NamedTensor& tensor : WeightsOf(std::move(state))) weights.push_back(std::move(tensor));
    return absl::OkStatus();
  };
  const absl::StatusOr<Manifest> manifest = ReadCheckpoint(run_dir + "/checkpoints", step, take);
  if (!manifest.ok()) return Annotate(manifest.status(), run_dir);
  return manifest->step;
}

// INVALID_ARGUMENT unless the weights are those of the model, all of them and no more.
absl::Status CheckFit(const std::vector<NamedTensor>& weights, const BuiltModel& built,
                      absl::string_view model_text) {
  const auto refuse = [&](absl::string_view verb, const std::string& name, absl::string_view has) {
    return absl::InvalidArgumentError(
        absl::StrCat("the weights ", verb, " \"", name.substr(0, kNameShownMax), "\", which ",
                     model_text, " ", has, "; evaluate with the config of their training"));
  };
  std::set<std::string> given, known;
  for (const NamedTensor& tensor : weights) given.insert(tensor.name);
  for (const auto& layer : built.layers) {
    for (const std::vector<NamedTensor>* tensors : {&layer->parameters(), &layer->buffers()}) {
      for (const NamedTensor& tensor : *tensors) {
        if (!given.contains(tensor.name)) return refuse("lack", tensor.name, "has");
        known.insert(tensor.name);
      }
    }
  }
  for (const std::string& name : given) {
    if (!known.contains(name)) return refuse("hold", name, "does not have");
  }
  for (const auto& layer : built.layers) {
    int64_t found = 0;
    SP_RETURN_IF_ERROR(LoadIntoLayer(weights, /*allow_partial=*/false, *layer, found));
  }
  return absl::OkStatus();
}

// One stage with all layers.
Plan WholeModelPlan() {
  return {.placement = {{WorkerId("eval")}}, .schedule = "gpipe", .credits = {}};
}

absl::StatusOr<ExportResult> Export(const ExportOptions& options) {
  std::vector<NamedTensor> weights;
  ExportResult result;
  SP_ASSIGN_OR_RETURN(result.step, ReadRunWeights(options.run_dir, options.step, weights));
  WeightsDigest digest;
  for (const NamedTensor& tensor : weights) {
    digest.Add(tensor);
    result.tensor_bytes += static_cast<int64_t>(tensor.tensor.nbytes());
  }
  SP_RETURN_IF_ERROR(WriteSafetensors(options.output_path, weights));
  result.num_tensors = static_cast<int64_t>(weights.size());
  result.weights_sha256 = digest.Finish();
  return result;
}

absl::StatusOr<EvalResult> Evaluate(const EvalOptions& options) {
  SP_ASSIGN_OR_RETURN(const std::string toml,
                      ReadSmallFile(options.config_path, limits::kConfigBytesMax));
  SP_ASSIGN_OR_RETURN(RunConfig config, ParseRunConfig(toml, options.config_path));
  config.model.weights.clear();
  config.model.allow_partial = false;
  config.train.batch_size = config.train.microbatches = 1;  // nothing is trained
  SetUpComputing(config.worker.threads);
  EvalResult result;
  std::vector<NamedTensor> weights;
  const bool of_run = !options.run_dir.empty();
  if (of_run) {
    SP_ASSIGN_OR_RETURN(result.step, ReadRunWeights(options.run_dir, options.step, weights));
  } else {
    SP_ASSIGN_OR_RETURN(weights, ReadSafetensors(options.weights_path));
  }
  SP_ASSIGN_OR_RETURN(BuiltModel built, BuildModel(config));
  const std::string model_text =
      absl::StrCat("model \"", config.model.name, "\" of ", options.config_path);
  SP_RETURN_IF_ERROR(Annotate(CheckFit(weights, built, model_text),
                              of_run ? options.run_dir : options.weights_path));
  LoopbackHub hub(1);
  const std::unique_ptr<Transport> transport = hub.MakeTransport(Rank(0));
  built.layers.clear();
  built.context.transport = transport.get();
  built.context.start_weights = std::move(weights);
  SP_ASSIGN_OR_RETURN(const std::unique_ptr<Interpreter> interpreter,
                      Interpreter::Create(built.context, WholeModelPlan()));
  SP_ASSIGN_OR_RETURN(const std::optional<TestScore> score, interpreter->Evaluate());
  if (!score) return absl::InternalError("the evaluation gave no score");
  result.score = *score;
  result.num_samples = built.dataset->size(Split::kTest);
  // In the order of the model, whatever that of a file is.
  WeightsDigest digest;
  SP_RETURN_IF_ERROR(interpreter->Gather([&](LayerIndex, const std::vector<NamedTensor>& tensors) {
    for (const NamedTensor& tensor : tensors) digest.Add(tensor);
    return absl::OkStatus();
  }));
  result.weights_sha256 = digest.Finish();
  return result;
}

}  // namespace

absl::StatusOr<ExportResult> ExportWeights(const ExportOptions& options) {
  return CatchExceptions(kOutOfMemoryCure, [&] { return Export(options); });
}

absl::StatusOr<EvalResult> EvaluateWeights(const EvalOptions& options) {
  return CatchExceptions(kOutOfMemoryCure, [&] { return Evaluate(options); });
}

}  // namespace smartpipe
