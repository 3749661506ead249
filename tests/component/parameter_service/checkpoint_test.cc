// Checkpoints over the wire: lists, pins, quota, and what a rising frontier saves.
#include <iostream>
#include <vector>

#include "absl/strings/str_format.h"
#include "gmock/gmock.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "gtest/gtest.h"
#include "tests/component/parameter_service/parameter_harness.h"

namespace smartpipe {
namespace {

using absl::StatusCode;
using testing::HasSubstr;
using testutil::CallParameter;
using testutil::Noise;
using testutil::ParameterHarness;
using testutil::Place;
using Stub = v1::ParameterService::Stub;

class CheckpointTest : public testing::Test {
 protected:
  v1::GetUsageResponse Usage() {
    v1::GetUsageResponse usage;
    EXPECT_TRUE(CallParameter(*stub_, &Stub::GetUsage, v1::GetUsageRequest(), &usage).ok());
    return usage;
  }
  template <typename Request>
  static Request At(int64_t step) {
    Request request;
    request.set_run_id("run");
    request.set_step(step);
    return request;
  }

  testutil::TempDir dir_;
  ParameterHarness service_{dir_.path(), /*quota_bytes=*/100'000};
  std::unique_ptr<Stub> stub_ = service_.Stub();
};

TEST_F(CheckpointTest, ListsInPages) {
  ParameterClient client = service_.Client();
  for (int64_t step = 0; step < 25; ++step) {
    ASSERT_TRUE(client.PutLayer(Place(step, 0, step == 24 ? 2 : 1), "same").ok());
  }
  v1::ListCheckpointsRequest request;
  request.set_page_size(10);
  std::vector<int> page_sizes;
  int64_t step = 0;
  do {
    v1::ListCheckpointsResponse page;
    ASSERT_TRUE(CallParameter(*stub_, &Stub::ListCheckpoints, request, &page).ok());
    for (const v1::Checkpoint& checkpoint : page.checkpoints()) {
      EXPECT_EQ(checkpoint.step(), step);
      EXPECT_EQ(checkpoint.state(),
                step == 24 ? v1::CHECKPOINT_STATE_INCOMPLETE : v1::CHECKPOINT_STATE_COMPLETE);
      EXPECT_EQ(checkpoint.size_bytes(), 4);
      ++step;
    }
    page_sizes.push_back(page.checkpoints_size());
    request.set_page_token(page.next_page_token());
    // What goes meanwhile shifts nothing.
    ASSERT_TRUE(client.DeleteCheckpoint("run", Step(page_sizes.size()), Generation(0)).ok());
  } while (!request.page_token().empty());
  EXPECT_THAT(page_sizes, testing::ElementsAre(10, 10, 5));
  v1::ListCheckpointsResponse page;
  for (const char* token : {"x", "run/", "run/-1", "../a/1", "/1"}) {
    request.set_page_token(token);
    EXPECT_EQ(CallParameter(*stub_, &Stub::ListCheckpoints, request, &page).code(),
              StatusCode::kInvalidArgument)
        << token;
  }
  request.clear_page_token();
  for (const int size : {-1, 1001}) {
    request.set_page_size(size);
    EXPECT_EQ(CallParameter(*stub_, &Stub::ListCheckpoints, request, &page).code(),
              StatusCode::kInvalidArgument);
  }
}

TEST_F(CheckpointTest, PinsHoldUntilTheyAreTakenAway) {
  ParameterClient client = service_.Client();
  ASSERT_TRUE(client.PutLayer(Place(0, 0, 1), "pinned").ok());
  v1::PinCheckpointResponse pinned;
  v1::UnpinCheckpointResponse unpinned;
  ASSERT_TRUE(
      CallParameter(*stub_, &Stub::PinCheckpoint, At<v1::PinCheckpointRequest>(0), &pinned).ok());
  EXPECT_EQ(
      CallParameter(*stub_, &Stub::PinCheckpoint, At<v1::PinCheckpointRequest>(1), &pinned).code(),
      StatusCode::kNotFound);
  const absl::Status refused = client.DeleteCheckpoint("run", Step(0), Generation(1));
  EXPECT_EQ(refused.code(), StatusCode::kFailedPrecondition);
  EXPECT_THAT(refused.message(), HasSubstr("is pinned; take the pin away first"));
  ASSERT_TRUE(
      CallParameter(*stub_, &Stub::UnpinCheckpoint, At<v1::UnpinCheckpointRequest>(0), &unpinned)
          .ok());
  ASSERT_TRUE(client.DeleteCheckpoint("run", Step(0), Generation(1)).ok());
  v1::CollectGarbageResponse collected;
  ASSERT_TRUE(
      CallParameter(*stub_, &Stub::CollectGarbage, v1::CollectGarbageRequest(), &collected).ok());
  EXPECT_EQ(collected.freed_bytes(), 6);
}

TEST_F(CheckpointTest, TheQuotaIsSaidAndOldCheckpointsMakeRoom) {
  ParameterClient client = service_.Client();
  ASSERT_TRUE(client.PutLayer(Place(0, 0, 1), Noise(60'000, 1)).ok());
  const absl::Status full = client.PutLayer(Place(1, 0, 1), Noise(60'000, 2)).status();
  EXPECT_EQ(full.code(), StatusCode::kResourceExhausted);
  EXPECT_THAT(full.message(), HasSubstr("no room for 60000 bytes: 60000 are stored and 0 on their "
                                        "way of a quota of 100000"));
  ASSERT_TRUE(client.DeleteCheckpoint("run", Step(0), Generation(1)).ok());
  EXPECT_TRUE(client.PutLayer(Place(1, 0, 1), Noise(60'000, 2)).ok());
  EXPECT_EQ(Usage().stored_bytes(), 60'000);
  EXPECT_EQ(Usage().quota_bytes(), 100'000);
  EXPECT_EQ(Usage().num_blobs(), 1);
}

TEST_F(CheckpointTest, HealthIsServing) {
  auto health = grpc::health::v1::Health::NewStub(service_.Channel());
  grpc::ClientContext context;
  grpc::health::v1::HealthCheckRequest request;
  request.set_service(ParameterServiceImpl::kName);
  grpc::health::v1::HealthCheckResponse response;
  ASSERT_TRUE(health->Check(&context, request, &response).ok());
  EXPECT_EQ(response.status(), grpc::health::v1::HealthCheckResponse::SERVING);
}

// A network of 10 equal layers, a checkpoint per epoch; from epoch 2 on one more layer is frozen
// with each. What is trained differs from epoch to epoch, what is frozen does not.
TEST(CheckpointBytes, FallAsTheFrontierRises) {
  constexpr int32_t kNumLayers = 10;
  constexpr int64_t kLayerBytes = 200'000;
  constexpr int64_t kEpochs = 10;
  testutil::TempDir dir;
  ParameterHarness service(dir.path());
  ParameterClient client = service.Client();
  std::cout << "epoch frontier   checkpoint  new on disk   sent over wire\n";
  int64_t stored_before = 0;
  int64_t all_checkpoints = 0;
  for (int64_t epoch = 0; epoch < kEpochs; ++epoch) {
    const auto frontier = static_cast<int32_t>(std::clamp<int64_t>(epoch - 1, 0, kNumLayers - 1));
    int64_t sent = 0;
    for (int32_t layer = 0; layer < kNumLayers; ++layer) {
      // Layer i freezes at the start of epoch 2 + i, with what epoch 1 + i left.
      const int64_t last_trained = std::min<int64_t>(epoch, 1 + layer);
      const std::string bytes = Noise(kLayerBytes, 1000 * last_trained + layer);
      const auto put = client.PutLayer(Place(epoch, layer, kNumLayers), bytes);
      ASSERT_TRUE(put.ok()) << put.status();
      EXPECT_EQ(put->already_there, layer < frontier) << "epoch " << epoch << " layer " << layer;
      sent += put->bytes_sent;
    }
    const int64_t stored = service.store().Usage().stored_bytes;
    const int64_t grown = stored - stored_before;
    stored_before = stored;
    all_checkpoints += kNumLayers * kLayerBytes;
    std::cout << absl::StrFormat("%5d %8d %12d %12d %16d\n", epoch, frontier,
                                 kNumLayers * kLayerBytes, grown, sent);
    EXPECT_EQ(grown, (kNumLayers - frontier) * kLayerBytes);
    EXPECT_EQ(sent, grown);
  }
  std::cout << absl::StrFormat(
      "all %10s %12d %12d (%.0f%%)\n", "", all_checkpoints, stored_before,
      100.0 * static_cast<double>(stored_before) / static_cast<double>(all_checkpoints));
  for (int64_t epoch = 0; epoch < kEpochs; ++epoch) {
    EXPECT_EQ(client.GetLayer("run", Step(epoch), LayerIndex(3)).value(),
              Noise(kLayerBytes, 1000 * std::min<int64_t>(epoch, 4) + 3));
  }
}

}  // namespace
}  // namespace smartpipe
