// Every single operation on the disk fails once, or is the last one before a power cut.
#include <filesystem>
#include <map>

#include "gtest/gtest.h"
#include "services/parameter_service/layer_store.h"
#include "tests/testutil/process.h"
#include "tests/unit/parameter_service/faulty_files.h"
#include "tests/unit/parameter_service/store_util.h"

namespace smartpipe {
namespace {

using testutil::FaultyFiles;
using testutil::Get;
using testutil::MakeVersion;
using testutil::PowerCut;
using testutil::Put;
namespace fs = std::filesystem;

constexpr int32_t kNumLayers = 3;

// Layer 0 is frozen; the others differ from step to step.
std::string Bytes(int64_t step, int32_t layer) {
  return absl::StrCat(layer == 0 ? 0 : step, ":", layer, std::string(100, 'x'));
}

/// What the store has acknowledged.
struct Acknowledged {
  std::map<int64_t, int32_t> num_layers;  // [step]
  bool deletes = false;                   // step 0, asked for
  bool deleted = false;                   // and done
  bool pinned = false;                    // step 10
};

absl::Status PutStep(LayerStore& store, int64_t step, Acknowledged* acknowledged) {
  for (int32_t layer = 0; layer < kNumLayers; ++layer) {
    const std::string bytes = Bytes(step, layer);
    const auto put = Put(store, MakeVersion(step, layer, bytes), bytes, 60);
    if (!put.ok()) return put.status();
    acknowledged->num_layers[step] = layer + 1;
  }
  return absl::OkStatus();
}

/// Two checkpoints, a pin, a deletion, a collection, a third checkpoint; stops at the first error.
absl::Status Play(LayerStore& store, Acknowledged* acknowledged) {
  absl::Status status = PutStep(store, 10, acknowledged);
  if (status.ok()) status = store.Pin("run", Step(10), Generation(1));
  acknowledged->pinned = acknowledged->deletes = status.ok();
  if (status.ok()) status = store.Delete("run", Step(0), Generation(1));
  acknowledged->deleted = status.ok();
  if (status.ok()) status = store.CollectGarbage().status();
  if (status.ok()) status = PutStep(store, 20, acknowledged);
  return status;
}

void CheckGood(LayerStore& store, int64_t step) {
  for (int32_t layer = 0; layer < kNumLayers; ++layer) {
    const auto bytes = Get(store, step, layer);
    ASSERT_TRUE(bytes.ok()) << bytes.status();
    ASSERT_EQ(*bytes, Bytes(step, layer));
  }
}

int64_t NumFiles(const std::string& folder) {
  int64_t count = 0;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    count += entry.is_regular_file();
  }
  return count;
}

/// Whatever was acknowledged is there, and all can go on.
void CheckRecovered(const std::string& folder, const Acknowledged& acknowledged) {
  auto store = LayerStore::Open({folder}).value();
  EXPECT_EQ(store->Usage().num_damaged_blobs, 0);
  for (const CheckpointInfo& info : store->ListCheckpoints("", std::nullopt, 100)) {
    EXPECT_NE(info.state, CheckpointState::kDamaged) << info.step;
    if (info.state == CheckpointState::kComplete) CheckGood(*store, info.step.value());
    const auto wanted = acknowledged.num_layers.find(info.step.value());
    if (wanted != acknowledged.num_layers.end()) {
      EXPECT_GE(info.num_layers_stored, wanted->second);
    }
  }
  for (const auto& [step, num_layers] : acknowledged.num_layers) {
    if (num_layers == kNumLayers && !(step == 0 && acknowledged.deletes)) CheckGood(*store, step);
  }
  if (acknowledged.deleted) {
    EXPECT_FALSE(Get(*store, 0, 0).ok());
  }
  if (acknowledged.pinned) {
    EXPECT_TRUE(store->GetCheckpoint("run", Step(10))->first.pinned);
  }
  // Go on to the end.
  Acknowledged rest;
  for (const int64_t step : {10, 20}) ASSERT_TRUE(PutStep(*store, step, &rest).ok());
  ASSERT_TRUE(store->Pin("run", Step(10), Generation(1)).ok());
  store->Delete("run", Step(0), Generation(1)).IgnoreError();
  ASSERT_TRUE(store->CollectGarbage().ok());
  CheckGood(*store, 10);
  CheckGood(*store, 20);
  EXPECT_EQ(store->Usage().num_blobs, 5);
  // Lock, generation, 2 manifests, a pin and 5 contents: nothing was left behind.
  store = nullptr;
  store = LayerStore::Open({folder}).value();
  EXPECT_EQ(NumFiles(folder), 10);
}

void PlayWithFault(int64_t fails_at, bool dies, PowerCut cut, bool* reached) {
  testutil::TempDir dir;
  FaultyFiles files(fails_at, dies);
  Acknowledged acknowledged;
  {
    auto healthy = LayerStore::Open({dir.path()}).value();
    ASSERT_TRUE(PutStep(*healthy, 0, &acknowledged).ok());
  }
  {
    auto store = LayerStore::Open({dir.path()}, files);
    if (store.ok()) {
      const absl::Status status = Play(**store, &acknowledged);
      ASSERT_TRUE(status.ok() || files.failed()) << status;
      if (!dies && !status.ok()) {
        // The same process tries again, and must not have been misled by the error.
        for (const int64_t step : {10, 20}) {
          ASSERT_TRUE(PutStep(**store, step, &acknowledged).ok());
          CheckGood(**store, step);
        }
      }
    }
  }
  *reached = files.failed();
  files.Cut(cut);
  CheckRecovered(dir.path(), acknowledged);
}

class CrashTest : public testing::TestWithParam<std::pair<bool, PowerCut>> {};

TEST_P(CrashTest, NothingAcknowledgedIsLostAtAnyOperation) {
  const auto [dies, cut] = GetParam();
  bool reached = true;
  int64_t fails_at = 0;
  for (; reached && !HasFailure(); ++fails_at) {
    SCOPED_TRACE(absl::StrCat("operation ", fails_at));
    PlayWithFault(fails_at, dies, cut, &reached);
  }
  std::cout << fails_at - 1 << " operations, each the one that fails\n";
  EXPECT_GT(fails_at, 60);
}

std::string NameOf(const testing::TestParamInfo<CrashTest::ParamType>& info) {
  static constexpr const char* kNames[] = {"KeepsAll", "TakesUnsynced", "TakesBytesOnly"};
  return absl::StrCat(info.param.first ? "Dies" : "GoesOn",
                      kNames[static_cast<int>(info.param.second)]);
}

INSTANTIATE_TEST_SUITE_P(All, CrashTest,
                         testing::Values(std::pair(true, PowerCut::kKeepsAll),
                                         std::pair(true, PowerCut::kTakesUnsynced),
                                         std::pair(true, PowerCut::kTakesBytesOnly),
                                         std::pair(false, PowerCut::kKeepsAll),
                                         std::pair(false, PowerCut::kTakesUnsynced)),
                         NameOf);

}  // namespace
}  // namespace smartpipe
