#include "services/parameter_service/stored_checkpoints.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testutil/process.h"
#include "tests/unit/parameter_service/store_util.h"

namespace smartpipe {
namespace {

using testutil::MakeVersion;
using testutil::Put;

class StoredCheckpointsTest : public testing::Test {
 protected:
  std::vector<CheckpointFiles> Read() { return ReadCheckpoints(dir_.File("store")).value(); }

  testutil::TempDir dir_;
  std::unique_ptr<LayerStore> store_ = LayerStore::Open({dir_.File("store")}).value();
};

TEST_F(StoredCheckpointsTest, TellsWhatTheServingProcessTells) {
  for (int64_t step : {4, 20, 100}) {
    for (int32_t layer = 0; layer < (step == 100 ? 2 : 3); ++layer) {
      const std::string bytes = layer == 0 ? "frozen" : absl::StrCat(step, "/", layer);
      ASSERT_TRUE(Put(*store_, MakeVersion(step, layer, bytes), bytes).ok());
    }
  }
  ASSERT_TRUE(store_->Pin("run", Step(20), Generation(0)).ok());
  const std::vector<CheckpointInfo> expected = store_->ListCheckpoints("", std::nullopt, 10);
  const std::vector<CheckpointFiles> actual = Read();
  ASSERT_EQ(actual.size(), 3u);
  for (size_t i = 0; i < actual.size(); ++i) {
    const Manifest& manifest = actual[i].manifest;
    EXPECT_EQ(manifest.run, "run");
    EXPECT_EQ(manifest.step, expected[i].step);
    EXPECT_EQ(manifest.generation, expected[i].generation);
    EXPECT_EQ(manifest.num_layers, expected[i].num_layers);
    EXPECT_EQ(static_cast<int32_t>(manifest.layers.size()), expected[i].num_layers_stored);
    EXPECT_EQ(manifest.size_bytes(), expected[i].size_bytes);
    EXPECT_EQ(manifest.complete(), expected[i].state == CheckpointState::kComplete);
    EXPECT_EQ(actual[i].pinned, expected[i].pinned);
    EXPECT_EQ(actual[i].problem, "");
  }
}

TEST_F(StoredCheckpointsTest, AManifestThatCannotBeReadIsNamed) {
  for (int32_t layer = 0; layer < 3; ++layer)
    ASSERT_TRUE(Put(*store_, MakeVersion(4, layer, "bytes"), "bytes").ok());
  testutil::WriteFile(dir_.File("store/runs/run/manifests/4"), "smartpipe-checkpoint 1\n");
  const std::vector<CheckpointFiles> actual = Read();
  ASSERT_EQ(actual.size(), 1u);
  EXPECT_EQ(actual[0].manifest.step, Step(4));
  EXPECT_NE(actual[0].problem, "");
}

TEST_F(StoredCheckpointsTest, AFolderThatIsNoStore) {
  EXPECT_TRUE(absl::IsNotFound(ReadCheckpoints(dir_.File("elsewhere")).status()));
  EXPECT_TRUE(Read().empty());
}

TEST(RunIdTest, AnyNameHasOne) {
  EXPECT_EQ(ToRunId("20261125-demo_1.x"), "20261125-demo_1.x");
  EXPECT_EQ(ToRunId("my run/größe"), "my_run_gr____e");
  EXPECT_EQ(ToRunId(".hidden"), "_hidden");
  EXPECT_EQ(ToRunId(""), "_");
  EXPECT_EQ(ToRunId(std::string(100, 'a')), std::string(63, 'a'));
  EXPECT_FALSE(IsRunId("my run"));
  EXPECT_FALSE(IsRunId(""));
}

}  // namespace
}  // namespace smartpipe
