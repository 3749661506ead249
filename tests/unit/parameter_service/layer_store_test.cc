#include "services/parameter_service/layer_store.h"

#include <sys/resource.h>

#include <csignal>
#include <filesystem>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/base/limits.h"
#include "tests/testutil/process.h"
#include "tests/unit/parameter_service/store_util.h"

namespace smartpipe {
namespace {

using absl::StatusCode;
using testing::HasSubstr;
using testutil::Get;
using testutil::MakeVersion;
using testutil::Put;
namespace fs = std::filesystem;

class LayerStoreTest : public testing::Test {
 protected:
  LayerStoreTest() { Reopen(); }

  void Reopen(int64_t quota_bytes = 0, bool verify = true) {
    store_ = nullptr;
    store_ = LayerStore::Open({dir_.path(), quota_bytes, verify}).value();
  }
  /// All three layers of a step; the text is the content's beginning.
  void PutAll(int64_t step, const std::string& text, int64_t generation = 1) {
    for (int32_t layer = 0; layer < 3; ++layer) {
      const std::string bytes = Bytes(text, layer);
      const auto put = Put(*store_, MakeVersion(step, layer, bytes, 3, generation), bytes);
      ASSERT_TRUE(put.ok()) << put.status();
      ASSERT_TRUE(put->checkpoint_complete || layer < 2);
    }
  }
  static std::string Bytes(const std::string& text, int32_t layer) {
    return absl::StrCat(text, layer, std::string(2000, 'x'));
  }
  std::string BlobFile(absl::string_view bytes) const {
    const std::string hex = DigestOf(bytes).hex();
    return dir_.File(absl::StrCat("blobs/", hex.substr(0, 2), "/", hex));
  }
  StatusCode PutCode(const LayerVersion& version) {
    return store_->BeginPut(version).status().code();
  }
  Step Newest() { return store_->GetCheckpoint("run", std::nullopt).value().first.step; }

  testutil::TempDir dir_;
  std::unique_ptr<LayerStore> store_;
};

TEST(ContentDigest, IsSha256) {
  EXPECT_EQ(DigestOf("abc").hex(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(ParseContentDigest(DigestOf("abc").hex()).value(), DigestOf("abc"));
  EXPECT_EQ(ParseContentDigest(std::string(64, 'A')).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(ParseContentDigest("ab").status().code(), StatusCode::kInvalidArgument);
}

TEST(Manifest, ReadsBackAndNoticesEveryChangedByte) {
  Manifest manifest{"run", Step(7), Generation(2), 2, {}};
  manifest.layers[LayerIndex(0)] = {"a name with spaces", DigestOf("a"), 1};
  manifest.layers[LayerIndex(1)] = {"b", DigestOf(""), 0};
  const std::string text = EncodeManifest(manifest);
  const Manifest again = DecodeManifest(text).value();
  EXPECT_EQ(again.run, "run");
  EXPECT_EQ(again.step, Step(7));
  EXPECT_EQ(again.generation, Generation(2));
  EXPECT_EQ(again.layers, manifest.layers);
  for (size_t i = 0; i < text.size(); ++i) {
    std::string spoiled = text;
    spoiled[i] = static_cast<char>(spoiled[i] ^ 1);
    EXPECT_EQ(DecodeManifest(spoiled).status().code(), StatusCode::kDataLoss) << i;
    EXPECT_EQ(DecodeManifest(text.substr(0, i)).status().code(), StatusCode::kDataLoss) << i;
  }
}

TEST_F(LayerStoreTest, ACheckpointIsThereWhenItsLastLayerIs) {
  const std::string a = Bytes("a", 0), b = Bytes("b", 1);
  EXPECT_FALSE(Put(*store_, MakeVersion(5, 1, b, 2), b)->checkpoint_complete);
  EXPECT_EQ(Get(*store_, 5, 1).status().message(),
            "the checkpoint of step 5 of run \"run\" is not complete: 1 of 2 layers are there");
  EXPECT_EQ(store_->ListCheckpoints("run", std::nullopt, 9)[0].state, CheckpointState::kIncomplete);
  EXPECT_TRUE(Put(*store_, MakeVersion(5, 0, a, 2), a, 7)->checkpoint_complete);
  EXPECT_EQ(Get(*store_, 5, 0).value(), a);
  EXPECT_EQ(Get(*store_, 5, 1).value(), b);
  EXPECT_EQ(Get(*store_, 5, 2).status().message(),
            "the checkpoint of step 5 of run \"run\" has no layer 2; its layers are 0 to 1");
  EXPECT_EQ(Get(*store_, 6, 0).status().code(), StatusCode::kNotFound);
  EXPECT_EQ(store_->GetCheckpoint("other", std::nullopt).status().code(), StatusCode::kNotFound);
  Reopen();
  EXPECT_THAT(store_->recovered(), testing::IsEmpty());
  EXPECT_EQ(Get(*store_, 5, 0).value(), a);
}

TEST_F(LayerStoreTest, AnIncompleteCheckpointGoesOnAfterARestart) {
  const std::string a = Bytes("a", 0);
  ASSERT_TRUE(Put(*store_, MakeVersion(5, 0, a, 2), a).ok());
  Reopen();
  EXPECT_TRUE(Put(*store_, MakeVersion(5, 1, "", 2), "")->checkpoint_complete);
  EXPECT_EQ(Get(*store_, 5, 0).value(), a);
  EXPECT_EQ(Get(*store_, 5, 1).value(), "");
}

TEST_F(LayerStoreTest, AContentIsStoredOnce) {
  PutAll(0, "same");
  const int64_t stored = store_->Usage().stored_bytes;
  EXPECT_EQ(stored, 3 * 2005);
  auto put = store_->BeginPut(MakeVersion(10, 0, Bytes("same", 0)));
  EXPECT_TRUE((*put)->state().complete);
  EXPECT_TRUE((*put)->state().already_there);
  PutAll(20, "same");
  EXPECT_EQ(store_->Usage().stored_bytes, stored);
  EXPECT_EQ(store_->Usage().num_blobs, 3);
}

TEST_F(LayerStoreTest, ChunksMayOverlapButLeaveNoGap) {
  const std::string bytes = "0123456789";
  auto put = store_->BeginPut(MakeVersion(0, 0, bytes, 1)).value();
  EXPECT_TRUE(put->Append(0, "0123").ok());
  EXPECT_TRUE(put->Append(0, "0123").ok());  // doubled
  EXPECT_EQ(put->state().bytes_held, 4);
  const absl::Status gap = put->Append(6, "67");
  EXPECT_EQ(gap.code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(gap.message(), "a chunk starts at offset 6 but 4 bytes are held; go on from there");
  for (const int64_t offset : {int64_t{-1}, int64_t{8}, int64_t{11}, INT64_MAX}) {
    EXPECT_EQ(put->Append(offset, "xxx").code(), StatusCode::kInvalidArgument) << offset;
  }
  EXPECT_TRUE(put->Append(2, "2345678").ok());
  EXPECT_TRUE(put->Append(9, "9").ok());
  EXPECT_TRUE(put->state().checkpoint_complete);
  EXPECT_EQ(Get(*store_, 0, 0).value(), bytes);
}

TEST_F(LayerStoreTest, AnotherPutGoesOnWhereABrokenOneStopped) {
  const std::string bytes = Bytes("a", 0);
  auto broken = store_->BeginPut(MakeVersion(0, 0, bytes, 1)).value();
  ASSERT_TRUE(broken->Append(0, bytes.substr(0, 1234)).ok());
  broken = nullptr;
  auto put = store_->BeginPut(MakeVersion(0, 0, bytes, 1)).value();
  EXPECT_EQ(put->state().bytes_held, 1234);
  EXPECT_EQ(store_->Usage().reserved_bytes, static_cast<int64_t>(bytes.size()));
  EXPECT_TRUE(put->Append(1234, bytes.substr(1234)).ok());
  EXPECT_EQ(Get(*store_, 0, 0).value(), bytes);
  EXPECT_EQ(store_->Usage().reserved_bytes, 0);
}

TEST_F(LayerStoreTest, ConcurrentPutsOfOneContentShareTheWork) {
  const std::string bytes(1 << 20, 'z');
  std::vector<std::thread> writers;
  for (int32_t layer = 0; layer < 4; ++layer) {
    writers.emplace_back([&, layer] {
      const auto put = Put(*store_, MakeVersion(0, layer, bytes, 4), bytes, 4096);
      EXPECT_TRUE(put.ok()) << put.status();
    });
  }
  for (std::thread& writer : writers) writer.join();
  EXPECT_EQ(store_->Usage().num_blobs, 1);
  for (int32_t layer = 0; layer < 4; ++layer) EXPECT_EQ(Get(*store_, 0, layer).value(), bytes);
}

TEST_F(LayerStoreTest, WrongBytesAreRefusedAndForgotten) {
  const LayerVersion version = MakeVersion(0, 0, "right", 1);
  const absl::Status wrong = Put(*store_, version, "wrong").status();
  EXPECT_EQ(wrong.code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(wrong.message(), HasSubstr("nothing was kept"));
  EXPECT_TRUE(Put(*store_, version, "right").ok());
  // Of several writers each may be right: they try again.
  const LayerVersion other = MakeVersion(1, 0, "abcd", 1);
  auto first = store_->BeginPut(other).value();
  auto second = store_->BeginPut(other).value();
  ASSERT_TRUE(first->Append(0, "xx").ok());
  EXPECT_EQ(second->Append(2, "cd").code(), StatusCode::kUnavailable);
  EXPECT_EQ(first->Append(2, "cd").code(), StatusCode::kUnavailable);
  EXPECT_TRUE(Put(*store_, other, "abcd").ok());
}

TEST_F(LayerStoreTest, FieldsOutOfRangeAreRefused) {
  const LayerVersion good = MakeVersion(0, 0, "a");
  std::vector<LayerVersion> bad(14, good);
  bad[0].run = "";
  bad[1].run = "../up";
  bad[2].run = ".";
  bad[3].run = std::string(64, 'a');
  bad[4].generation = Generation(0);
  bad[5].step = Step(-1);
  bad[6].step = Step(limits::kStepsMax + 1);
  bad[7].layer = LayerIndex(3);
  bad[8].layer = LayerIndex(-1);
  bad[9].num_layers = 0;
  bad[10].entry.name = "";
  bad[11].entry.name = "a\nb";
  bad[12].entry.size_bytes = -1;
  bad[13].entry.name = std::string(256, 'n');
  for (size_t i = 0; i < bad.size(); ++i) {
    EXPECT_EQ(PutCode(bad[i]), StatusCode::kInvalidArgument) << i;
  }
  ASSERT_TRUE(Put(*store_, good, "a").ok());
  EXPECT_EQ(PutCode(MakeVersion(0, 1, "a", 4)), StatusCode::kInvalidArgument) << "other num_layers";
}

TEST_F(LayerStoreTest, AGenerationThatIsOverIsRefused) {
  PutAll(0, "a", 3);
  Reopen();
  const absl::Status stale = store_->BeginPut(MakeVersion(1, 0, "b", 3, 2)).status();
  EXPECT_EQ(stale.code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(stale.message(), "generation 2 of run \"run\" is over: the newest is 3");
  auto started = store_->BeginPut(MakeVersion(1, 0, "b", 3, 3)).value();
  EXPECT_EQ(PutCode(MakeVersion(1, 1, "b", 3, 4)), StatusCode::kOk);
  EXPECT_EQ(started->Append(0, "b").code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(store_->Delete("run", Step(0), Generation(3)).code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(store_->Pin("run", Step(0), Generation(3)).code(), StatusCode::kFailedPrecondition);
}

TEST_F(LayerStoreTest, ANewGenerationWritesAStepAgainAndReplacesItAtItsEnd) {
  PutAll(0, "old");
  const std::string half = Bytes("half", 0);
  ASSERT_TRUE(Put(*store_, MakeVersion(0, 0, half, 3, 2), half).ok());
  EXPECT_EQ(Get(*store_, 0, 0).value(), Bytes("old", 0));
  PutAll(0, "new", 3);  // what generation 2 began is forgotten
  EXPECT_EQ(Get(*store_, 0, 0).value(), Bytes("new", 0));
  EXPECT_EQ(store_->GetCheckpoint("run", Step(0))->first.generation, Generation(3));
  // Within a generation nothing changes.
  EXPECT_EQ(PutCode(MakeVersion(0, 0, "another", 3, 3)), StatusCode::kFailedPrecondition);
  PutAll(0, "new", 3);
}

TEST_F(LayerStoreTest, QuotaMakesRoomByGarbageAndIdleUploadsOnly) {
  PutAll(0, "keep");
  PutAll(1, "drop");
  Reopen(6 * 2005 + 100);
  EXPECT_EQ(PutCode(MakeVersion(2, 0, std::string(2005, 'n'))), StatusCode::kResourceExhausted);
  { ASSERT_TRUE(store_->BeginPut(MakeVersion(2, 0, std::string(100, 'i'))).ok()); }
  EXPECT_EQ(store_->Usage().reserved_bytes, 100);
  ASSERT_TRUE(store_->Delete("run", Step(1), Generation(0)).ok());
  PutAll(2, "next");  // in the place of the garbage
  EXPECT_EQ(store_->Usage().reserved_bytes, 100);
  EXPECT_EQ(Get(*store_, 0, 0).value(), Bytes("keep", 0));
  EXPECT_EQ(Get(*store_, 2, 2).value(), Bytes("next", 2));
  const absl::Status full = store_->BeginPut(MakeVersion(3, 0, std::string(200, 'x'))).status();
  EXPECT_EQ(full.message(),
            "no room for 200 bytes: 12030 are stored and 0 on their way of a quota of 12130; "
            "delete old checkpoints or raise --quota-bytes");
}

TEST_F(LayerStoreTest, APutThatFindsNoRoomRaisesNoGeneration) {
  PutAll(0, "a", 3);
  Reopen(/*quota_bytes=*/3 * 2002);
  LayerVersion version = MakeVersion(1, 0, std::string(100, 'n'), 3, 4);
  EXPECT_EQ(PutCode(version), StatusCode::kResourceExhausted);
  version.run = "another";
  EXPECT_EQ(PutCode(version), StatusCode::kResourceExhausted);
  EXPECT_FALSE(fs::exists(dir_.File("runs/another")));
  EXPECT_TRUE(store_->Pin("run", Step(0), Generation(3)).ok());
}

TEST_F(LayerStoreTest, ADeletionThatFailsIsSaid) {
  ASSERT_TRUE(Put(*store_, MakeVersion(5, 0, "a", 2), "a").ok());
  fs::create_directories(dir_.File("runs/run/pending/5/in/the_way"));
  EXPECT_FALSE(store_->Delete("run", Step(5), Generation(0)).ok());
  EXPECT_EQ(store_->ListCheckpoints("run", std::nullopt, 9).size(), 1);
  fs::remove(dir_.File("runs/run/pending/5/in/the_way"));
  EXPECT_TRUE(store_->Delete("run", Step(5), Generation(0)).ok());
  Reopen();
  EXPECT_EQ(store_->ListCheckpoints("run", std::nullopt, 9).size(), 0);
}

TEST_F(LayerStoreTest, GarbageIsWhatNobodyHolds) {
  PutAll(0, "shared");
  PutAll(1, "shared");
  PutAll(2, "alone");
  ASSERT_TRUE(store_->Pin("run", Step(2), Generation(0)).ok());
  Reopen();
  EXPECT_EQ(store_->Delete("run", Step(2), Generation(0)).message(),
            "the checkpoint of step 2 of run \"run\" is pinned; take the pin away first");
  ASSERT_TRUE(store_->Delete("run", Step(0), Generation(0)).ok());
  EXPECT_EQ(store_->CollectGarbage()->num_blobs, 0);
  ASSERT_TRUE(store_->Unpin("run", Step(2), Generation(0)).ok());
  ASSERT_TRUE(store_->Unpin("run", Step(2), Generation(0)).ok());
  auto reader = store_->OpenLayer("run", Step(2), LayerIndex(0)).value();
  ASSERT_TRUE(store_->Delete("run", Step(2), Generation(0)).ok());
  EXPECT_EQ(store_->CollectGarbage()->freed_bytes, 3 * 2006);
  char buffer[4096];
  EXPECT_EQ(reader->Read(buffer, sizeof(buffer)).value(), 2006) << "who reads may go on";
  EXPECT_EQ(Get(*store_, 1, 1).value(), Bytes("shared", 1));
  EXPECT_EQ(store_->Delete("run", Step(2), Generation(0)).code(), StatusCode::kNotFound);
  // An incomplete checkpoint holds its layers, too.
  ASSERT_TRUE(Put(*store_, MakeVersion(9, 0, "pending"), "pending").ok());
  EXPECT_EQ(store_->CollectGarbage()->num_blobs, 0);
  ASSERT_TRUE(store_->Delete("run", Step(9), Generation(0)).ok());
  EXPECT_EQ(store_->CollectGarbage()->num_blobs, 1);
}

TEST_F(LayerStoreTest, DamageIsNamedAndTheLastGoodCheckpointStays) {
  PutAll(0, "good");
  PutAll(1, "torn");
  PutAll(2, "bits");
  PutAll(3, "gone");
  fs::resize_file(BlobFile(Bytes("torn", 1)), 100);
  std::string spoiled = Bytes("bits", 1);
  spoiled[50] ^= 1;
  testutil::WriteFile(BlobFile(Bytes("bits", 1)), spoiled);
  fs::remove(BlobFile(Bytes("gone", 1)));
  // Found while it runs, by reading.
  EXPECT_EQ(Newest(), Step(3));
  EXPECT_EQ(Get(*store_, 3, 1).status().code(), StatusCode::kDataLoss);
  EXPECT_EQ(Newest(), Step(2));
  EXPECT_EQ(Get(*store_, 2, 1).status().code(), StatusCode::kDataLoss);
  EXPECT_EQ(Newest(), Step(1));
  Reopen();  // found at the start
  EXPECT_EQ(Newest(), Step(0));
  const std::string report = testing::PrintToString(store_->recovered());
  EXPECT_THAT(report, HasSubstr(absl::StrCat("damaged: the 100 bytes of ",
                                             BlobFile(Bytes("torn", 1)), " have sha256 ")));
  EXPECT_THAT(report, HasSubstr(BlobFile(Bytes("bits", 1))));
  EXPECT_THAT(report, HasSubstr("damaged: the checkpoint of step 3"));
  EXPECT_EQ(Get(*store_, 2, 1).status().code(), StatusCode::kDataLoss);
  EXPECT_EQ(Get(*store_, 2, 0).value(), Bytes("bits", 0));
  EXPECT_EQ(store_->ListCheckpoints("run", std::nullopt, 9)[2].state, CheckpointState::kDamaged);
  PutAll(2, "bits");  // the put heals
  EXPECT_EQ(Newest(), Step(2));
  EXPECT_EQ(Get(*store_, 2, 1).value(), Bytes("bits", 1));
  Reopen(0, /*verify=*/false);
  EXPECT_EQ(Newest(), Step(2)) << "sizes alone show what is torn and gone";
}

TEST_F(LayerStoreTest, WhatAnUnreadableManifestHoldsIsNotCollected) {
  PutAll(0, "good");
  PutAll(1, "unknown");
  fs::resize_file(dir_.File("runs/run/manifests/1"), 60);
  Reopen();
  EXPECT_EQ(Newest(), Step(0));
  EXPECT_EQ(Get(*store_, 1, 0).status().code(), StatusCode::kDataLoss);
  EXPECT_EQ(store_->CollectGarbage().status().code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(store_->Usage().num_blobs, 6);
  Reopen(/*quota_bytes=*/6 * 2010);
  EXPECT_THAT(store_->BeginPut(MakeVersion(2, 0, std::string(100, 'n'))).status().message(),
              HasSubstr("nothing is collected while the checkpoint of step 1"));
  Reopen();
  PutAll(1, "unknown");
  EXPECT_EQ(Get(*store_, 1, 0).value(), Bytes("unknown", 0));
  fs::resize_file(dir_.File("runs/run/manifests/1"), 60);
  Reopen();
  ASSERT_TRUE(store_->Delete("run", Step(1), Generation(0)).ok());
  EXPECT_EQ(store_->CollectGarbage()->num_blobs, 3);
}

TEST_F(LayerStoreTest, ListsInPagesByRunAndStep) {
  for (const char* run : {"b", "a"}) {
    for (const int64_t step : {100, 20, 3}) {
      LayerVersion version = MakeVersion(step, 0, "x", step == 20 ? 2 : 1);
      version.run = run;
      ASSERT_TRUE(Put(*store_, version, "x").ok());
    }
  }
  std::string seen;
  std::optional<std::pair<std::string, Step>> after;
  while (true) {
    const auto page = store_->ListCheckpoints("", after, 2);
    if (page.empty()) break;
    for (const CheckpointInfo& info : page) {
      absl::StrAppend(&seen, info.run, info.step.value(),
                      info.state == CheckpointState::kComplete ? " " : "? ");
    }
    after = {page.back().run, page.back().step};
  }
  EXPECT_EQ(seen, "a3 a20? a100 b3 b20? b100 ");
  EXPECT_EQ(store_->ListCheckpoints("b", std::nullopt, 10).size(), 3);
  EXPECT_EQ(store_->ListCheckpoints("c", std::nullopt, 10).size(), 0);
}

// The file may grow to a part of the content only, as on a full disk.
TEST_F(LayerStoreTest, AFullDiskIsSaidAndTheNextPutStartsAgain) {
  const std::string bytes(100'000, 'f');
  rlimit old_limit;
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &old_limit), 0);
  const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit limit = old_limit;
  limit.rlim_cur = 50'000;
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
  const absl::Status full = Put(*store_, MakeVersion(0, 0, bytes, 1), bytes).status();
  setrlimit(RLIMIT_FSIZE, &old_limit);
  std::signal(SIGXFSZ, old_handler);
  EXPECT_THAT(full.message(), HasSubstr("cannot write to"));
  EXPECT_TRUE(fs::is_empty(dir_.File("partial")));
  EXPECT_EQ(store_->Usage().reserved_bytes, 0);
  EXPECT_TRUE(Put(*store_, MakeVersion(0, 0, bytes, 1), bytes).ok());
}

TEST_F(LayerStoreTest, OneProcessAtATime) {
  const auto second = LayerStore::Open({dir_.path()});
  EXPECT_EQ(second.status().code(), StatusCode::kUnavailable);
  EXPECT_THAT(second.status().message(), HasSubstr("another process serves the layer store"));
}

TEST_F(LayerStoreTest, StrangeFilesAreNamedAndLeftAlone) {
  PutAll(0, "a");
  store_ = nullptr;
  testutil::WriteFile(dir_.File("blobs/notes.txt"), "mine");
  fs::create_directory(dir_.File("blobs/zz"));
  testutil::WriteFile(dir_.File("blobs/zz/readme"), "mine");
  testutil::WriteFile(dir_.File("runs/run/manifests/latest"), "mine");
  testutil::WriteFile(dir_.File("runs/run/manifests/5.tmp"), "half");
  testutil::WriteFile(dir_.File("partial/abc"), "half");
  Reopen();
  EXPECT_EQ(store_->recovered().size(), 5) << testing::PrintToString(store_->recovered());
  EXPECT_TRUE(fs::exists(dir_.File("blobs/zz/readme")));
  EXPECT_FALSE(fs::exists(dir_.File("runs/run/manifests/5.tmp")));
  EXPECT_FALSE(fs::exists(dir_.File("partial/abc")));
  EXPECT_EQ(Newest(), Step(0));
}

}  // namespace
}  // namespace smartpipe
