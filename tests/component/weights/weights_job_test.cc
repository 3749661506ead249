// Weights out of a layer store, as a file and as a score, without any process.
#include "worker/weights_job.h"

#include <algorithm>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/config/run_config.h"
#include "services/parameter_service/layer_store.h"
#include "tests/testutil/process.h"
#include "tests/unit/parameter_service/store_util.h"
#include "worker/built_model.h"
#include "worker/engine/layer_runner.h"
#include "worker/model/layer_state.h"

namespace smartpipe {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::StartsWith;

constexpr char kConfig[] = R"(
[train]
batch_size = 16
microbatches = 4
[pipeline]
stages = 2
[model]
name = "convnet"
[data]
name = "synthetic"
limit_train = 16
limit_test = 40
)";

std::string Message(const absl::Status& status) { return std::string(status.message()); }

/// A run directory with the checkpoint of step 8, layers 0 and 1 frozen, as workers store it.
class WeightsJobTest : public testing::Test {
 protected:
  WeightsJobTest() {
    testutil::WriteFile(config_path_, kConfig);
    config_ = ParseRunConfig(kConfig, "test").value();
    built_ = BuildModel(config_).value();
    for (int32_t layer = 0; layer < built_.model->num_layers(); ++layer)
      Store(layer, PackedState(LayerIndex(layer), /*frozen=*/layer < 2));
  }
  std::string PackedState(LayerIndex layer, bool frozen) {
    const std::unique_ptr<LayerRunner> runner = MakeLayerRunner(built_.context, layer).value();
    if (frozen) runner->Freeze();
    const std::vector<NamedTensor> state = runner->State();
    EXPECT_EQ(state.size() > WeightsOf(state).size(), !frozen);
    const at::Tensor packed = PackTensors(state);
    return {static_cast<const char*>(packed.const_data_ptr()), packed.nbytes()};
  }
  void Store(int32_t layer, const std::string& bytes, int64_t step = 8) {
    const LayerVersion version =
        testutil::MakeVersion(step, layer, bytes, built_.model->num_layers());
    ASSERT_TRUE(testutil::Put(*store_, version, bytes).ok());
  }
  std::vector<NamedTensor> ModelWeights() const {
    std::vector<NamedTensor> weights;
    for (const auto& layer : built_.layers) {
      weights.insert(weights.end(), layer->parameters().begin(), layer->parameters().end());
      weights.insert(weights.end(), layer->buffers().begin(), layer->buffers().end());
    }
    return weights;
  }
  std::string ModelDigest() const {
    WeightsDigest digest;
    for (const auto& layer : built_.layers) digest.Add(*layer);
    return digest.Finish();
  }
  absl::StatusOr<EvalResult> EvalFile(const std::vector<NamedTensor>& weights) {
    const std::string path = run_.File("file.safetensors");
    EXPECT_TRUE(WriteSafetensors(path, weights).ok());
    return EvaluateWeights({.config_path = config_path_, .weights_path = path});
  }

  testutil::TempDir run_;
  const std::string config_path_ = run_.File("config.toml");
  const std::string output_ = run_.File("out.safetensors");
  RunConfig config_;
  BuiltModel built_;
  std::unique_ptr<LayerStore> store_ = LayerStore::Open({run_.File("checkpoints")}).value();
};

TEST_F(WeightsJobTest, AnExportIsTheWeightsFileOfTraining) {
  const ExportResult result =
      ExportWeights({.run_dir = run_.path(), .output_path = output_}).value();
  EXPECT_EQ(result.step, Step(8));
  EXPECT_EQ(result.weights_sha256, ModelDigest());
  EXPECT_EQ(result.num_tensors, static_cast<int64_t>(ModelWeights().size()));
  const std::string expected = run_.File("expected.safetensors");
  ASSERT_TRUE(WriteSafetensors(expected, ModelWeights()).ok());
  EXPECT_EQ(testutil::ReadFile(output_), testutil::ReadFile(expected));
}

TEST_F(WeightsJobTest, ARunAndItsFileScoreTheSameInAnyOrderOfTensors) {
  const EvalResult of_run =
      EvaluateWeights({.config_path = config_path_, .run_dir = run_.path()}).value();
  EXPECT_EQ(of_run.step, Step(8));
  EXPECT_EQ(of_run.num_samples, 40);
  EXPECT_EQ(of_run.weights_sha256, ModelDigest());
  EXPECT_GT(of_run.score.loss, 0);
  std::vector<NamedTensor> weights = ModelWeights();
  std::reverse(weights.begin(), weights.end());
  const EvalResult of_file = EvalFile(weights).value();
  EXPECT_FALSE(of_file.step.has_value());
  EXPECT_EQ(of_file.score.accuracy, of_run.score.accuracy);
  EXPECT_EQ(of_file.score.loss, of_run.score.loss);
  EXPECT_EQ(of_file.weights_sha256, of_run.weights_sha256);
}

TEST_F(WeightsJobTest, WeightsOfAnotherModelNameTheTensor) {
  std::vector<NamedTensor> weights = ModelWeights();
  weights.push_back({std::string(1000, 'x'), weights[0].tensor});
  const absl::Status more = EvalFile(weights).status();
  EXPECT_TRUE(absl::IsInvalidArgument(more)) << more;
  EXPECT_THAT(Message(more), HasSubstr(absl::StrCat("the weights hold \"", std::string(100, 'x'),
                                                    "\", which model \"convnet\" of ")));
  weights.pop_back();
  weights.pop_back();
  const absl::Status less = EvalFile(weights).status();
  EXPECT_TRUE(absl::IsInvalidArgument(less)) << less;
  EXPECT_THAT(Message(less), AllOf(StartsWith(run_.File("file.safetensors: the weights lack \"")),
                                   HasSubstr("with the config of their training")));
  weights = ModelWeights();
  weights[0].tensor = weights[1].tensor;
  const absl::Status other = EvalFile(weights).status();
  EXPECT_TRUE(absl::IsInvalidArgument(other)) << other;
  EXPECT_THAT(Message(other), HasSubstr(weights[0].name));
}

TEST_F(WeightsJobTest, BytesThatAreNoLayerAreNamed) {
  for (int32_t layer = 0; layer < built_.model->num_layers(); ++layer)
    Store(layer, absl::StrCat("of somebody else ", layer), 9);
  const absl::Status status =
      ExportWeights({.run_dir = run_.path(), .output_path = output_}).status();
  EXPECT_TRUE(absl::IsDataLoss(status)) << status;
  EXPECT_THAT(Message(status),
              AllOf(StartsWith(absl::StrCat(run_.path(), ": layer 0 (\"block0\") ")),
                    HasSubstr("step 9"), HasSubstr("packed tensors are torn")));
  EXPECT_FALSE(std::filesystem::exists(output_));
  EXPECT_TRUE(
      ExportWeights({.run_dir = run_.path(), .step = Step(8), .output_path = output_}).ok());
}

TEST_F(WeightsJobTest, AFileThatCannotBeWrittenIsNamed) {
  const absl::Status status =
      ExportWeights({.run_dir = run_.path(), .output_path = run_.File("no/out")}).status();
  EXPECT_THAT(Message(status), HasSubstr(run_.File("no/out")));
}

}  // namespace
}  // namespace smartpipe
