// Layers over the wire: puts, gets, and everything that may go wrong with a stream.
#include <filesystem>
#include <fstream>
#include <map>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/base/limits.h"
#include "tests/component/parameter_service/parameter_harness.h"
#include "tests/unit/parameter_service/faulty_files.h"

namespace smartpipe {
namespace {

using absl::StatusCode;
using testing::HasSubstr;
using testutil::Chunk;
using testutil::Header;
using testutil::Noise;
using testutil::ParameterHarness;
using testutil::Place;
using testutil::PutStream;

class ParameterServiceTest : public testing::Test {
 protected:
  testutil::TempDir dir_;
  ParameterHarness service_{dir_.File("store")};
  std::unique_ptr<v1::ParameterService::Stub> stub_ = service_.Stub();
};

TEST_F(ParameterServiceTest, ALayerComesBackAsItWasPut) {
  ParameterClient client = service_.Client(1000);
  const std::string bytes = Noise(12'345, 1);
  const auto put = client.PutLayer(Place(4, 0, 1), bytes);
  ASSERT_TRUE(put.ok()) << put.status();
  EXPECT_FALSE(put->already_there);
  EXPECT_TRUE(put->checkpoint_complete);
  EXPECT_EQ(put->bytes_sent, 12'345);
  EXPECT_EQ(client.GetLayer("run", Step(4), LayerIndex(0)).value(), bytes);
  const StoredCheckpoint newest = client.GetCheckpoint("run").value();
  EXPECT_EQ(newest.step, Step(4));
  EXPECT_EQ(newest.generation, Generation(1));
  ASSERT_EQ(newest.layers.size(), 1);
  EXPECT_EQ(newest.layers[0].sha256(), DigestOf(bytes).hex());
  EXPECT_EQ(newest.layers[0].name(), "block0");
}

TEST_F(ParameterServiceTest, AContentThatIsThereIsNotSent) {
  ParameterClient client = service_.Client();
  const std::string bytes = Noise(5000, 2);
  ASSERT_TRUE(client.PutLayer(Place(0, 0, 1), bytes).ok());
  const auto again = client.PutLayer(Place(1, 0, 1), bytes, DigestOf(bytes));
  EXPECT_TRUE(again->already_there);
  EXPECT_TRUE(again->checkpoint_complete);
  EXPECT_EQ(again->bytes_sent, 0);
  EXPECT_EQ(client.GetLayer("run", Step(1), LayerIndex(0)).value(), bytes);
}

TEST_F(ParameterServiceTest, TheWrongSizeIsRefused) {
  const std::string bytes = Noise(100, 3);
  PutStream longer(*stub_);
  longer.Write(Header(Place(0, 0), bytes));
  longer.Write(Chunk(0, Noise(101, 3)));
  const absl::Status status = longer.Finish();
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(), "a chunk of 101 bytes at offset 0 does not fit a layer of 100 bytes");
  PutStream shorter(*stub_);
  shorter.Write(Header(Place(0, 0), bytes));
  shorter.Write(Chunk(0, bytes.substr(0, 60)));
  ASSERT_TRUE(shorter.Finish().ok());
  EXPECT_FALSE(shorter.response().complete());
  EXPECT_EQ(shorter.response().bytes_held(), 60);
  PutStream wrong(*stub_);
  wrong.Write(Header(Place(0, 1), bytes));
  wrong.Write(Chunk(60, Noise(40, 4)));
  EXPECT_EQ(wrong.Finish().code(), StatusCode::kUnavailable) << "pieces of two writers";
  EXPECT_TRUE(service_.Client().PutLayer(Place(0, 0), bytes).ok());
}

TEST_F(ParameterServiceTest, MalformedStreamsAreRefused) {
  const std::string bytes = Noise(100, 5);
  const auto code = [&](const std::vector<v1::PutLayerRequest>& messages) {
    PutStream stream(*stub_);
    for (const auto& message : messages) {
      if (!stream.Write(message)) break;
    }
    return stream.Finish().code();
  };
  v1::PutLayerRequest bad_digest = Header(Place(0, 0), bytes);
  bad_digest.mutable_header()->set_sha256("12");
  EXPECT_EQ(code({}), StatusCode::kInvalidArgument);
  EXPECT_EQ(code({Chunk(0, bytes)}), StatusCode::kInvalidArgument);
  EXPECT_EQ(code({v1::PutLayerRequest()}), StatusCode::kInvalidArgument);
  EXPECT_EQ(code({bad_digest}), StatusCode::kInvalidArgument);
  EXPECT_EQ(code({Header(Place(0, 3), bytes)}), StatusCode::kInvalidArgument);
  EXPECT_EQ(code({Header(Place(0, 0), bytes), Header(Place(0, 0), bytes)}),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(code({Header(Place(0, 0), bytes), Chunk(0, "")}), StatusCode::kInvalidArgument);
  const std::string big(limits::kLayerChunkBytesMax + 1, 'b');
  EXPECT_EQ(code({Header(Place(0, 0), big), Chunk(0, big)}), StatusCode::kInvalidArgument);
  EXPECT_TRUE(service_.Client().PutLayer(Place(0, 0, 1), bytes).ok());
}

TEST_F(ParameterServiceTest, DoubledChunksAreHarmlessAndGapsRefused) {
  const std::string bytes = Noise(300, 6);
  const absl::string_view view = bytes;
  PutStream gap(*stub_);
  gap.Write(Header(Place(0, 0, 1), bytes));
  gap.Write(Chunk(0, view.substr(0, 100)));
  gap.Write(Chunk(0, view.substr(0, 100)));
  gap.Write(Chunk(200, view.substr(200)));
  const absl::Status status = gap.Finish();
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(),
            "a chunk starts at offset 200 but 100 bytes are held; go on from there");
  // A stream that starts behind what is held is told so: its upload may have been dropped.
  PutStream behind(*stub_);
  behind.Write(Header(Place(0, 0, 1), bytes));
  behind.Write(Chunk(200, view.substr(200)));
  ASSERT_TRUE(behind.Finish().ok());
  EXPECT_FALSE(behind.response().complete());
  EXPECT_EQ(behind.response().bytes_held(), 100);
  PutStream rest(*stub_);
  rest.Write(Header(Place(0, 0, 1), bytes));
  rest.Write(Chunk(50, view.substr(50)));
  ASSERT_TRUE(rest.Finish().ok());
  EXPECT_TRUE(rest.response().complete());
  EXPECT_EQ(service_.Client().GetLayer("run", Step(0), LayerIndex(0)).value(), bytes);
}

TEST_F(ParameterServiceTest, ACutStreamIsResumedWhereItWas) {
  const std::string bytes = Noise(3 << 20, 7);
  PutStream cut(*stub_);
  cut.Write(Header(Place(0, 0, 1), bytes));
  cut.Write(Chunk(0, absl::string_view(bytes).substr(0, 1 << 20)));
  // What arrived is seen from outside.
  const auto held = [&] {
    PutStream ask(*stub_);
    ask.Write(Header(Place(0, 0, 1), bytes));
    EXPECT_TRUE(ask.Finish().ok());
    return ask.response().bytes_held();
  };
  ASSERT_TRUE(testutil::Eventually([&] { return held() == 1 << 20; }, absl::Seconds(10)));
  cut.Break();
  const auto put = service_.Client().PutLayer(Place(0, 0, 1), bytes);
  ASSERT_TRUE(put.ok()) << put.status();
  EXPECT_EQ(put->bytes_sent, 2 << 20);
  EXPECT_EQ(service_.Client().GetLayer("run", Step(0), LayerIndex(0)).value(), bytes);
}

TEST_F(ParameterServiceTest, GenerationsAreFenced) {
  ParameterClient client = service_.Client();
  ASSERT_TRUE(client.PutLayer(Place(0, 0, 1, 5), "a").ok());
  const absl::Status stale = client.PutLayer(Place(1, 0, 1, 4), "b").status();
  EXPECT_EQ(stale.code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(stale.message(),
            "putting layer 0 of step 1 of run \"run\": generation 4 of run \"run\" is over: the "
            "newest is 5");
  EXPECT_EQ(client.DeleteCheckpoint("run", Step(0), Generation(4)).code(),
            StatusCode::kFailedPrecondition);
  EXPECT_EQ(client.PutLayer(Place(0, 0, 1, 5), "other").status().code(),
            StatusCode::kFailedPrecondition);
  EXPECT_TRUE(client.DeleteCheckpoint("run", Step(0), Generation(5)).ok());
}

TEST_F(ParameterServiceTest, WhatIsNotThereIsNotFound) {
  ParameterClient client = service_.Client();
  EXPECT_EQ(client.GetCheckpoint("run").status().code(), StatusCode::kNotFound);
  ASSERT_TRUE(client.PutLayer(Place(0, 0, 1), "a").ok());
  EXPECT_EQ(client.GetLayer("run", Step(0), LayerIndex(1)).status().code(), StatusCode::kNotFound);
  EXPECT_EQ(client.GetLayer("run", Step(1), LayerIndex(0)).status().code(), StatusCode::kNotFound);
  EXPECT_EQ(client.GetLayer("no", Step(0), LayerIndex(0)).status().code(), StatusCode::kNotFound);
  EXPECT_EQ(client.DeleteCheckpoint("run", Step(7), Generation(0)).code(), StatusCode::kNotFound);
  EXPECT_EQ(client.GetLayer("run", Step(0), LayerIndex(0), 0).status().code(),
            StatusCode::kResourceExhausted);
}

TEST_F(ParameterServiceTest, ManyPutTheSameLayerAtOnce) {
  const std::string bytes = Noise(4 << 20, 8);
  std::vector<std::thread> writers;
  for (int32_t layer = 0; layer < 6; ++layer) {
    writers.emplace_back([&, layer] {
      // Two of each place, all with one content.
      const auto put = service_.Client(64 << 10).PutLayer(Place(0, layer / 2), bytes);
      EXPECT_TRUE(put.ok()) << put.status();
    });
  }
  for (std::thread& writer : writers) writer.join();
  EXPECT_EQ(service_.store().Usage().num_blobs, 1);
  for (int32_t layer = 0; layer < 3; ++layer) {
    EXPECT_EQ(service_.Client().GetLayer("run", Step(0), LayerIndex(layer)).value(), bytes);
  }
}

TEST_F(ParameterServiceTest, ALayerMayBeLargerThanAMessage) {
  const std::string bytes = Noise(3 * limits::kGrpcMessageBytesMax + 1, 9);
  for (const int64_t chunk_bytes : {int64_t{1} << 20, limits::kLayerChunkBytesMax}) {
    ParameterClient client = service_.Client(chunk_bytes);
    ASSERT_TRUE(client.PutLayer(Place(chunk_bytes, 0, 1), bytes).ok());
    const auto got = client.GetLayer("run", Step(chunk_bytes), LayerIndex(0));
    ASSERT_TRUE(got.ok()) << got.status();
    EXPECT_TRUE(*got == bytes);
  }
}

// Names and texts of everything that counts as stored; uploads that are going on do not.
std::map<std::string, std::string> Stored(const std::string& folder) {
  std::map<std::string, std::string> files;
  for (const char* part : {"/blobs", "/runs"}) {
    for (const auto& entry : std::filesystem::recursive_directory_iterator(folder + part)) {
      const std::string path = entry.path();
      files[path] = entry.is_regular_file() ? testutil::ReadFile(path) : "";
    }
  }
  return files;
}

TEST_F(ParameterServiceTest, WhatIsRefusedChangesNothing) {
  ParameterClient client = service_.Client();
  const std::string kept = Noise(200, 20), bytes = Noise(300, 21);
  ASSERT_TRUE(client.PutLayer(Place(0, 0, 1, 5), kept).ok());
  ASSERT_TRUE(client.PutLayer(Place(1, 0, 3, 5), kept).ok());
  const auto before = Stored(dir_.File("store"));
  const auto put = [&](const LayerPlace& place, const std::string& announced,
                       const std::vector<v1::PutLayerRequest>& chunks) {
    PutStream stream(*stub_);
    stream.Write(Header(place, announced));
    for (const auto& chunk : chunks) {
      if (!stream.Write(chunk)) break;
    }
    return stream.Finish().code();
  };
  const std::string half = bytes.substr(0, 150);
  LayerPlace other_run = Place(0, 0, 1, 1);
  other_run.run = "../other";
  // Generation 6 and the run "new" would be taken over by a put that is not refused.
  EXPECT_EQ(put(Place(2, 0, 3, 4), bytes, {}), StatusCode::kFailedPrecondition) << "stale";
  EXPECT_EQ(put(Place(1, 0, 3, 5), bytes, {}), StatusCode::kFailedPrecondition)
      << "another content";
  EXPECT_EQ(put(Place(1, 1, 4, 5), bytes, {}), StatusCode::kInvalidArgument) << "number of layers";
  EXPECT_EQ(put(Place(1, 3, 3, 6), bytes, {}), StatusCode::kInvalidArgument) << "unknown layer";
  EXPECT_EQ(put(other_run, bytes, {}), StatusCode::kInvalidArgument) << "no name of a run";
  EXPECT_EQ(put(Place(1, 1, 3, 5), bytes, {Chunk(0, bytes + "x")}), StatusCode::kInvalidArgument);
  EXPECT_EQ(put(Place(1, 1, 3, 5), bytes, {Chunk(0, half), Chunk(0, half), Chunk(200, half)}),
            StatusCode::kInvalidArgument)
      << "doubled, then a gap";
  EXPECT_EQ(put(Place(1, 1, 3, 5), kept + "y", {Chunk(0, kept + "z")}),
            StatusCode::kInvalidArgument)
      << "wrong digest";
  EXPECT_EQ(client.DeleteCheckpoint("run", Step(0), Generation(4)).code(),
            StatusCode::kFailedPrecondition);
  EXPECT_EQ(client.DeleteCheckpoint("run", Step(9), Generation(6)).code(), StatusCode::kNotFound);
  v1::PinCheckpointRequest pin;
  pin.set_run_id("run");
  pin.set_step(1);
  pin.set_generation(6);
  v1::PinCheckpointResponse pinned;
  using Stub = v1::ParameterService::Stub;
  EXPECT_EQ(testutil::CallParameter(*stub_, &Stub::PinCheckpoint, pin, &pinned).code(),
            StatusCode::kNotFound)
      << "incomplete";
  PutStream cut(*stub_);
  cut.Write(Header(Place(1, 1, 3, 5), bytes));
  cut.Write(Chunk(0, half));
  cut.Break();
  EXPECT_EQ(Stored(dir_.File("store")), before);
  EXPECT_EQ(client.GetLayer("run", Step(0), LayerIndex(0)).value(), kept);
}

// Each operation of a put on the disk finds it full once.
TEST(ParameterServiceDisk, FullItIsSaidAndTheLastCheckpointStaysGood) {
  bool reached = true;
  for (int64_t operation = 0; reached && !testing::Test::HasFailure(); ++operation) {
    SCOPED_TRACE(absl::StrCat("operation ", operation));
    testutil::TempDir dir;
    testutil::FaultyFiles files(/*fails_at=*/-1, /*dies=*/false);
    ParameterHarness service(dir.path(), 0, "127.0.0.1:0", files);
    ParameterClient client = service.Client();
    ASSERT_TRUE(client.PutLayer(Place(0, 0, 1), "good").ok());
    files.FailAfter(operation);
    const auto put = client.PutLayer(Place(1, 0, 1), "next");
    reached = files.failed();
    if (!put.ok()) {
      EXPECT_EQ(put.status().code(), StatusCode::kResourceExhausted) << put.status();
      EXPECT_THAT(put.status().message(), HasSubstr("disk full"));
      EXPECT_EQ(client.GetCheckpoint("run")->step, Step(0));
    }
    EXPECT_EQ(client.GetLayer("run", Step(0), LayerIndex(0)).value(), "good");
    // There is room again.
    EXPECT_TRUE(client.PutLayer(Place(1, 0, 1), "next")->checkpoint_complete);
    EXPECT_EQ(client.GetLayer("run", Step(1), LayerIndex(0)).value(), "next");
    EXPECT_TRUE(reached || operation > 10) << "a put has more operations than that";
  }
}

TEST_F(ParameterServiceTest, AGetGoesOnFromAnOffset) {
  const std::string bytes = Noise((2 << 20) + 17, 10);
  ASSERT_TRUE(service_.Client().PutLayer(Place(0, 0, 1), bytes).ok());
  const int64_t size = static_cast<int64_t>(bytes.size());
  for (const int64_t offset : {int64_t{0}, int64_t{5}, int64_t{1} << 20, size - 1, size}) {
    grpc::ClientContext context;
    v1::GetLayerRequest request;
    request.set_run_id("run");
    request.set_offset(offset);
    auto reader = stub_->GetLayer(&context, request);
    v1::GetLayerResponse response;
    ASSERT_TRUE(reader->Read(&response));
    EXPECT_EQ(response.header().size_bytes(), size);
    std::string got;
    while (reader->Read(&response)) {
      EXPECT_EQ(response.chunk().offset(), offset + static_cast<int64_t>(got.size()));
      got += response.chunk().data();
    }
    EXPECT_TRUE(reader->Finish().ok());
    EXPECT_TRUE(got == bytes.substr(offset)) << offset;
  }
  v1::GetLayerRequest request;
  request.set_run_id("run");
  request.set_offset(size + 1);
  grpc::ClientContext context;
  auto reader = stub_->GetLayer(&context, request);
  v1::GetLayerResponse response;
  EXPECT_FALSE(reader->Read(&response));
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(ParameterServiceTest, ABitThatTurnedOnTheDiskIsDataLoss) {
  const std::string bytes = Noise(3 << 20, 11);
  ParameterClient client = service_.Client();
  ASSERT_TRUE(client.PutLayer(Place(0, 0, 1), "good").ok());
  ASSERT_TRUE(client.PutLayer(Place(1, 0, 1), bytes).ok());
  const std::string hex = DigestOf(bytes).hex();
  const std::string path = dir_.File(absl::StrCat("store/blobs/", hex.substr(0, 2), "/", hex));
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(2'000'000);
  file.put(static_cast<char>(bytes[2'000'000] ^ 4));
  file.close();
  const absl::Status status = client.GetLayer("run", Step(1), LayerIndex(0)).status();
  EXPECT_EQ(status.code(), StatusCode::kDataLoss);
  EXPECT_THAT(status.message(), HasSubstr(path));
  EXPECT_EQ(client.GetCheckpoint("run")->step, Step(0));
  ASSERT_TRUE(client.PutLayer(Place(1, 0, 1), bytes).ok());
  EXPECT_TRUE(client.GetLayer("run", Step(1), LayerIndex(0)).value() == bytes);
}

TEST(ParameterClient, GoesOnAcrossARestartOfTheService) {
  testutil::TempDir dir;
  auto service = std::make_unique<ParameterHarness>(dir.path());
  const std::string address = service->address();
  const std::string bytes = Noise(1 << 20, 12);
  int num_waits = 0;
  const std::shared_ptr<grpc::Channel> channel = service->Channel();
  // Between two attempts the service comes back.
  ParameterClient client(
      {.channel = channel, .call_timeout = absl::Seconds(20), .sleep = [&](absl::Duration) {
         ++num_waits;
         if (service == nullptr) {
           service = std::make_unique<ParameterHarness>(dir.path(), 0, address);
         }
         EXPECT_TRUE(WaitConnected(*channel, address, absl::Seconds(10)).ok());
       }});
  ASSERT_TRUE(client.PutLayer(Place(0, 0, 2), bytes).ok());
  service = nullptr;
  const auto put = client.PutLayer(Place(0, 1, 2), bytes + "2");
  ASSERT_TRUE(put.ok()) << put.status();
  EXPECT_TRUE(put->checkpoint_complete);
  service = nullptr;
  EXPECT_EQ(client.GetLayer("run", Step(0), LayerIndex(1)).value(), bytes + "2");
  EXPECT_GE(num_waits, 2);
}

TEST(ParameterClient, GivesUpAfterItsAttemptsWithGrowingWaits) {
  std::vector<absl::Duration> waits;
  ParameterClient client({.channel = MakeChannel({.address = "127.0.0.1:1", .keepalive = {}}),
                          .attempts_max = 5,
                          .wait_max = absl::Milliseconds(300),
                          .sleep = [&](absl::Duration wait) { waits.push_back(wait); }});
  const absl::Status status = client.PutLayer(Place(0, 0), "x").status();
  EXPECT_EQ(status.code(), StatusCode::kUnavailable);
  EXPECT_THAT(
      status.message(),
      HasSubstr("putting layer 0 of step 0 of run \"run\" failed 5 times, the last time: "));
  EXPECT_THAT(waits, testing::ElementsAre(absl::Milliseconds(100), absl::Milliseconds(200),
                                          absl::Milliseconds(300), absl::Milliseconds(300)));
}

}  // namespace
}  // namespace smartpipe
