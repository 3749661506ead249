// The uploader against the real store in this process, and against one that stands still.
#include "worker/control/checkpoint_uploader.h"

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/obs/log.h"
#include "tests/component/parameter_service/parameter_harness.h"
#include "tests/testutil/process.h"

namespace smartpipe {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testutil::ParameterHarness;

constexpr absl::Duration kLong = absl::Seconds(30);
constexpr int32_t kNumLayers = 2;

CheckpointUploader::Options OptionsFor(std::shared_ptr<grpc::Channel> channel,
                                       int64_t keep_last = 10) {
  return {.channel = std::move(channel),
          .run = "run",
          .generation = Generation(1),
          .num_layers = kNumLayers,
          .keep_last = keep_last,
          .attempts_max = 1};
}

CheckpointLayer Packed(int32_t layer, const std::string& text, bool frozen = false) {
  auto owner = std::make_shared<const std::string>(text);
  return {LayerIndex(layer), absl::StrCat("block", layer), frozen, *owner, owner};
}

CheckpointLayer Unpacked(int32_t layer) {
  return {.layer = LayerIndex(layer), .name = absl::StrCat("block", layer), .frozen = true};
}

/// "4 8!": steps of the checkpoints in the store; ! = incomplete.
std::string Stored(LayerStore& store) {
  std::vector<std::string> steps;
  for (const CheckpointInfo& info : store.ListCheckpoints("run", std::nullopt, 1000)) {
    const bool complete = info.state == CheckpointState::kComplete;
    steps.push_back(absl::StrCat(info.step.value(), complete ? "" : "!"));
  }
  std::string text;
  for (const std::string& step : steps) absl::StrAppend(&text, text.empty() ? "" : " ", step);
  return text;
}

class CheckpointUploaderTest : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(
        InitLogging({.process = "test", .level = "warning", .file = dir_.File("log.txt")}).ok());
  }
  std::string Log() { return testutil::ReadFile(dir_.File("log.txt")); }

  testutil::TempDir dir_;
};

void PutBoth(CheckpointUploader& uploader, int64_t step) {
  uploader.WaitReady();
  uploader.Put({Step(step),
                {Packed(0, absl::StrCat("first", step)), Packed(1, absl::StrCat("second", step))}});
}

TEST_F(CheckpointUploaderTest, AFrozenLayerIsStoredOnceAndThenNeedsNoBytes) {
  ParameterHarness harness(dir_.File("store"));
  CheckpointUploader uploader(OptionsFor(harness.Channel()));
  EXPECT_THAT(uploader.WaitReady(), IsEmpty());
  uploader.Put({Step(4), {Packed(0, "frozen", /*frozen=*/true), Packed(1, "first")}});
  EXPECT_THAT(uploader.WaitReady(), ElementsAre(LayerIndex(0)));
  uploader.Put({Step(8), {Unpacked(0), Packed(1, "second")}});
  const CheckpointBytes bytes = uploader.Finish(kLong);
  EXPECT_EQ(bytes.written, 6 + 5 + 6);
  EXPECT_EQ(bytes.shared, 6);
  EXPECT_EQ(Stored(harness.store()), "4 8");
  const Manifest manifest = harness.store().GetCheckpoint("run", Step(8))->second;
  EXPECT_EQ(manifest.layers.at(LayerIndex(0)).digest, DigestOf("frozen"));
  EXPECT_EQ(manifest.layers.at(LayerIndex(1)).digest, DigestOf("second"));
}

TEST_F(CheckpointUploaderTest, AStoredContentThatIsGoneIsAskedForAgain) {
  ParameterHarness harness(dir_.File("store"));
  CheckpointUploader uploader(OptionsFor(harness.Channel()));
  uploader.WaitReady();
  uploader.Put({Step(4), {Packed(0, "frozen", /*frozen=*/true), Packed(1, "first")}});
  EXPECT_THAT(uploader.WaitReady(), ElementsAre(LayerIndex(0)));
  ASSERT_TRUE(harness.store().Delete("run", Step(4), Generation(0)).ok());
  ASSERT_TRUE(harness.store().CollectGarbage().ok());
  uploader.Put({Step(8), {Unpacked(0), Packed(1, "second")}});
  EXPECT_THAT(uploader.WaitReady(), IsEmpty());
  EXPECT_THAT(Log(), AllOf(HasSubstr("the checkpoint of step 8 is not complete"),
                           HasSubstr("no longer has the content")));
  uploader.Put({Step(12), {Packed(0, "frozen", /*frozen=*/true), Packed(1, "third")}});
  uploader.Finish(kLong);
  EXPECT_EQ(Stored(harness.store()), "12");
}

TEST_F(CheckpointUploaderTest, OlderOnesGoUnlessTheyArePinned) {
  ParameterHarness harness(dir_.File("store"));
  CheckpointUploader uploader(OptionsFor(harness.Channel(), /*keep_last=*/2));
  PutBoth(uploader, 1);
  uploader.WaitReady();
  ASSERT_TRUE(harness.store().Pin("run", Step(1), Generation(0)).ok());
  uploader.Put({Step(2), {Packed(0, "alone")}});  // never complete
  for (int64_t step : {3, 4, 5}) PutBoth(uploader, step);
  uploader.Finish(kLong);
  EXPECT_EQ(Stored(harness.store()), "1 4 5");
  EXPECT_EQ(harness.store().Usage().num_blobs, 6);
}

TEST_F(CheckpointUploaderTest, AnErrorIsAWarningAndTheNextCheckpointIsTried) {
  ParameterHarness harness(dir_.File("store"), /*quota_bytes=*/100);
  CheckpointUploader uploader(OptionsFor(harness.Channel()));
  uploader.WaitReady();
  uploader.Put({Step(4), {Packed(0, std::string(1000, 'x')), Packed(1, "small")}});
  PutBoth(uploader, 8);
  const CheckpointBytes bytes = uploader.Finish(kLong);
  EXPECT_EQ(bytes.written, 6 + 7);
  EXPECT_EQ(Stored(harness.store()), "8");
  EXPECT_THAT(Log(),
              AllOf(HasSubstr("warning"), HasSubstr("step 4 is not complete: putting layer 0"),
                    HasSubstr("quota")));
}

TEST_F(CheckpointUploaderTest, AServiceThatIsNotThereIsAWarning) {
  CheckpointUploader uploader(OptionsFor(MakeChannel({.address = "127.0.0.1:1", .keepalive = {}})));
  PutBoth(uploader, 4);
  EXPECT_EQ(uploader.Finish(kLong).written, 0);
  EXPECT_THAT(Log(), HasSubstr("the checkpoint of step 4 is not complete"));
}

/// Answers no put until it is told to.
class StandingStore final : public v1::ParameterService::Service {
 public:
  grpc::Status PutLayer(grpc::ServerContext*, grpc::ServerReader<v1::PutLayerRequest>* reader,
                        v1::PutLayerResponse* response) override {
    v1::PutLayerRequest request;
    reader->Read(&request);
    if (!asked.HasBeenNotified()) asked.Notify();
    go_on.WaitForNotification();
    response->set_complete(true);
    return grpc::Status::OK;
  }

  absl::Notification asked, go_on;
};

class StandingStoreTest : public CheckpointUploaderTest {
 protected:
  StandingStoreTest()
      : server_(StartServer({.listen_address = "127.0.0.1:0"},
                            {{v1::ParameterService::service_full_name(), &store_}})
                    .value()),
        uploader_(OptionsFor(MakeChannel({.address = server_->address(), .keepalive = {}}))) {}
  ~StandingStoreTest() override {
    if (!store_.go_on.HasBeenNotified()) store_.go_on.Notify();
  }
  void PutOne() {
    uploader_.WaitReady();
    uploader_.Put({Step(4), {Packed(0, "bytes")}});
    store_.asked.WaitForNotification();
  }

  StandingStore store_;
  std::unique_ptr<RpcServer> server_;
  CheckpointUploader uploader_;
};

TEST_F(StandingStoreTest, TheNextCheckpointWaitsForTheOneBefore) {
  PutOne();
  absl::Notification ready;
  std::thread compute([&] {
    uploader_.WaitReady();
    ready.Notify();
  });
  EXPECT_FALSE(ready.HasBeenNotified());
  store_.go_on.Notify();
  EXPECT_TRUE(ready.WaitForNotificationWithTimeout(kLong));
  compute.join();
}

TEST_F(StandingStoreTest, CancelEndsTheWait) {
  PutOne();
  absl::Notification ready;
  std::thread compute([&] {
    uploader_.WaitReady();
    ready.Notify();
  });
  uploader_.Cancel();
  EXPECT_TRUE(ready.WaitForNotificationWithTimeout(kLong));
  compute.join();
  EXPECT_EQ(uploader_.Finish(kLong).written, 0);
}

TEST_F(StandingStoreTest, FinishGivesUpAfterItsTime) {
  PutOne();
  EXPECT_EQ(uploader_.Finish(absl::Milliseconds(1)).written, 0);
  EXPECT_THAT(Log(), HasSubstr("the last checkpoint is given up"));
}

}  // namespace
}  // namespace smartpipe
