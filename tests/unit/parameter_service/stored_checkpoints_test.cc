#include "services/parameter_service/stored_checkpoints.h"

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testutil/process.h"
#include "tests/unit/parameter_service/store_util.h"

namespace smartpipe {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
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

std::string Message(const absl::Status& status) { return std::string(status.message()); }

/// Real files; the first time that a layer's bytes are opened `before_blob` runs.
class WatchedFiles final : public FileOperations {
 public:
  explicit WatchedFiles(std::function<void()> before_blob) : before_blob_(std::move(before_blob)) {}
  absl::Status MakeFolder(const std::string& path) override { return real_.MakeFolder(path); }
  absl::StatusOr<std::unique_ptr<WritableFile>> Create(const std::string& path) override {
    return real_.Create(path);
  }
  absl::StatusOr<std::unique_ptr<ReadableFile>> Open(const std::string& path) override {
    if (path.find("/blobs/") != std::string::npos && ++num_opened == 2) before_blob_();
    return real_.Open(path);
  }
  absl::Status Rename(const std::string& from, const std::string& to) override {
    return real_.Rename(from, to);
  }
  absl::Status Remove(const std::string& path) override { return real_.Remove(path); }
  absl::Status SyncFolder(const std::string& path) override { return real_.SyncFolder(path); }
  absl::StatusOr<std::vector<std::string>> List(const std::string& path) override {
    return real_.List(path);
  }
  int num_opened = 0;

 private:
  FileOperations& real_ = SystemFiles();
  const std::function<void()> before_blob_;
};

class ReadCheckpointTest : public StoredCheckpointsTest {
 protected:
  ReadCheckpointTest() {
    for (int64_t step : {10, 20, 30}) PutStep(step, step == 30 ? 2 : 3);
  }
  void PutStep(int64_t step, int32_t num_layers = 3) {
    for (int32_t layer = 0; layer < num_layers; ++layer) {
      const std::string bytes = absl::StrCat("step ", step, ", layer ", layer);
      ASSERT_TRUE(Put(*store_, MakeVersion(step, layer, bytes), bytes).ok());
    }
  }
  /// The layers' bytes are in layers_ then.
  absl::StatusOr<Manifest> ReadOne(std::optional<Step> step,
                                   FileOperations& files = SystemFiles()) {
    const auto take = [this](LayerIndex layer, const std::string& bytes) {
      if (layer == LayerIndex(0)) layers_.clear();
      layers_.push_back(bytes);
      return absl::OkStatus();
    };
    return ReadCheckpoint(dir_.File("store"), step, take, files);
  }
  std::string BlobPath(const std::string& bytes) const {
    const std::string hex = DigestOf(bytes).hex();
    return dir_.File(absl::StrCat("store/blobs/", hex.substr(0, 2), "/", hex));
  }
  std::vector<std::string> layers_;
};

TEST_F(ReadCheckpointTest, TheNewestCompleteOneUnlessAStepIsGiven) {
  EXPECT_EQ(ReadOne(std::nullopt).value().step, Step(20));
  EXPECT_THAT(layers_, ElementsAre("step 20, layer 0", "step 20, layer 1", "step 20, layer 2"));
  EXPECT_EQ(ReadOne(Step(10)).value().step, Step(10));
  EXPECT_THAT(layers_, ElementsAre("step 10, layer 0", "step 10, layer 1", "step 10, layer 2"));
}

TEST_F(ReadCheckpointTest, AStepThatIsNotThereNamesThoseThatAre) {
  const absl::Status missing = ReadOne(Step(7)).status();
  EXPECT_TRUE(absl::IsNotFound(missing)) << missing;
  EXPECT_EQ(Message(missing),
            "there is no checkpoint of step 7; those of steps 10 and 20 are complete");
  const absl::Status incomplete = ReadOne(Step(30)).status();
  EXPECT_TRUE(absl::IsNotFound(incomplete)) << incomplete;
  EXPECT_THAT(Message(incomplete), HasSubstr("step 30 has only 2 of 3 layers; those of steps"));
  ASSERT_TRUE(store_->Delete("run", Step(20), Generation(0)).ok());
  EXPECT_THAT(Message(ReadOne(Step(20)).status()), HasSubstr("; that of step 10 is complete"));
}

TEST_F(ReadCheckpointTest, OfManyStepsTheLastAreNamed) {
  std::vector<CheckpointFiles> many(1000, Read()[0]);
  for (size_t i = 0; i < many.size(); ++i) many[i].manifest.step = Step(static_cast<int64_t>(i));
  const std::string message = Message(ChooseCheckpoint(many, Step(5000)).status());
  EXPECT_THAT(message, AllOf(HasSubstr("steps ..., 980, 981, "), HasSubstr("998 and 999 are")));
}

TEST_F(ReadCheckpointTest, NoCompleteOneYet) {
  ASSERT_TRUE(store_->Delete("run", Step(10), Generation(0)).ok());
  ASSERT_TRUE(store_->Delete("run", Step(20), Generation(0)).ok());
  for (const std::optional<Step> step : {std::optional<Step>(), std::optional(Step(30))}) {
    const absl::Status status = ReadOne(step).status();
    EXPECT_TRUE(absl::IsUnavailable(status)) << status;
    EXPECT_THAT(Message(status), HasSubstr("checkpoint.every_steps"));
  }
}

TEST_F(ReadCheckpointTest, ADamagedManifestIsSkippedUnlessItIsAskedFor) {
  testutil::WriteFile(dir_.File("store/runs/run/manifests/20"), "smartpipe-checkpoint 1\n");
  EXPECT_EQ(ReadOne(std::nullopt).value().step, Step(10));
  const absl::Status asked = ReadOne(Step(20)).status();
  EXPECT_TRUE(absl::IsDataLoss(asked)) << asked;
  EXPECT_THAT(Message(asked), AllOf(HasSubstr("step 20 is damaged: "), HasSubstr("of step 10 is")));
  testutil::WriteFile(dir_.File("store/runs/run/manifests/10"), "");
  EXPECT_TRUE(absl::IsDataLoss(ReadOne(std::nullopt).status()));
}

TEST_F(ReadCheckpointTest, OfSeveralRunsNoneIsGuessed) {
  LayerVersion version = MakeVersion(40, 0, "other", 1);
  version.run = "other";
  ASSERT_TRUE(Put(*store_, version, "other").ok());
  const absl::Status status = ReadOne(std::nullopt).status();
  EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
  EXPECT_THAT(Message(status), HasSubstr("several runs (other, run)"));
}

TEST_F(ReadCheckpointTest, DamagedBytesAreNamed) {
  const std::string path = BlobPath("step 20, layer 1");
  const auto refused = [&](const std::string& bytes) {
    testutil::WriteFile(path, bytes);
    const absl::Status status = ReadOne(std::nullopt).status();
    EXPECT_TRUE(absl::IsDataLoss(status)) << status;
    EXPECT_THAT(Message(status),
                AllOf(HasSubstr("layer 1 (\"block1\") of the checkpoint of step 20: "),
                      HasSubstr(path), HasSubstr("take the checkpoint of another step")));
    return Message(status);
  };
  EXPECT_THAT(refused("step 20, layer 9"), HasSubstr("its bytes have sha256"));
  EXPECT_THAT(refused("step 20"), HasSubstr("it has 7 bytes, not 16"));
  EXPECT_THAT(refused(std::string(1000, 'x')), HasSubstr("it has 1000 bytes, not 16"));
  std::filesystem::remove(path);
  const absl::Status gone = ReadOne(std::nullopt).status();
  EXPECT_TRUE(absl::IsDataLoss(gone)) << gone;
  EXPECT_EQ(ReadOne(Step(10)).value().step, Step(10));
}

TEST_F(ReadCheckpointTest, ASizeThatNoFileHasTakesNoMemory) {
  LayerEntry entry{"block", DigestOf("step 20, layer 0"), int64_t{1} << 44};
  const absl::Status status = ReadBlob(dir_.File("store"), entry).status();
  EXPECT_TRUE(absl::IsDataLoss(status)) << status;
}

TEST_F(ReadCheckpointTest, OneThatIsRemovedMeanwhileGivesWayToTheNext) {
  WatchedFiles files([this] {
    PutStep(40);
    ASSERT_TRUE(store_->Delete("run", Step(20), Generation(0)).ok());
    ASSERT_TRUE(store_->CollectGarbage().ok());
  });
  EXPECT_EQ(ReadOne(std::nullopt, files).value().step, Step(40));
  EXPECT_THAT(layers_, ElementsAre("step 40, layer 0", "step 40, layer 1", "step 40, layer 2"));
  EXPECT_EQ(files.num_opened, 5);
}

TEST_F(ReadCheckpointTest, WhatTheTakerRefusesIsNamed) {
  const absl::Status status =
      ReadCheckpoint(dir_.File("store"), std::nullopt, [](LayerIndex, const std::string&) {
        return absl::InvalidArgumentError("torn");
      }).status();
  EXPECT_TRUE(absl::IsDataLoss(status)) << status;
  EXPECT_THAT(Message(status), AllOf(HasSubstr("layer 0"), HasSubstr("cannot be used: torn")));
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
