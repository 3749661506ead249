// What only the Gloo transport has: connecting, its threads and sockets, its failures on the way
// up.
#include <dirent.h>

#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/base/memory_key_value_store.h"
#include "tests/component/transport/rank_group.h"
#include "worker/comm/transport.h"

namespace smartpipe {
namespace {

using testing::HasSubstr;
using testutil::EmptyLike;
using testutil::MemberNames;
using testutil::PatternTensor;

size_t NumEntries(const char* folder) {
  DIR* dir = opendir(folder);
  size_t count = 0;
  while (readdir(dir) != nullptr) ++count;
  closedir(dir);
  return count;
}

TransportOptions Options(int32_t rank, int32_t size, std::shared_ptr<KeyValueStore> store) {
  return {.rank = Rank(rank),
          .size = size,
          .member_names = MemberNames(size),
          .store = std::move(store)};
}

// Groups that are closed, aborted, or left with transfers under way, watched or not.
TEST(GlooTransport, LeavesNoThreadAndNoSocket) {
  const at::Tensor tensor = PatternTensor(c10::kFloat, 4000, 1);
  auto use_group = [&tensor](int round) {
    auto transports = testutil::GlooKind().make(3, absl::Seconds(60));
    auto receive = transports[1]->Receive(Rank(0), ChannelKind::kActivation, EmptyLike(tensor));
    auto send = transports[0]->Send(Rank(1), ChannelKind::kActivation, tensor);
    EXPECT_EQ((*receive)->Wait(), absl::OkStatus());
    EXPECT_EQ((*send)->Wait(), absl::OkStatus());
    if (round % 4 == 0) return;
    auto pending = transports[2]->Receive(Rank(0), ChannelKind::kState, EmptyLike(tensor));
    auto watched = transports[2]->Receive(Rank(1), ChannelKind::kState, EmptyLike(tensor));
    EXPECT_FALSE((*watched)->Done());
    if (round % 4 == 1) transports[2]->Abort(absl::CancelledError("stop"));
    if (round % 4 == 2) transports[0].reset();
    if (round % 4 == 3) transports.clear();
  };
  use_group(1);  // what is made once per process
  const size_t num_threads = NumEntries("/proc/self/task");
  const size_t num_files = NumEntries("/proc/self/fd");
  for (int round = 0; round < 20; ++round) use_group(round);
  EXPECT_EQ(NumEntries("/proc/self/task"), num_threads);
  EXPECT_EQ(NumEntries("/proc/self/fd"), num_files);
}

TEST(GlooTransport, ReconnectsOverTheSameStoreWithAnotherPrefix) {
  // As the service hands out: one store, a prefix per generation.
  class Prefixed final : public KeyValueStore {
   public:
    Prefixed(std::string prefix, KeyValueStore& store)
        : prefix_(std::move(prefix)), store_(store) {}
    absl::Status Set(const std::string& key, const std::string& value) override {
      return store_.Set(prefix_ + key, value);
    }
    absl::StatusOr<std::string> Get(const std::string& key, absl::Duration timeout) override {
      return store_.Get(prefix_ + key, timeout);
    }
    absl::StatusOr<int64_t> Add(const std::string& key, int64_t amount) override {
      return store_.Add(prefix_ + key, amount);
    }
    absl::StatusOr<std::string> CompareAndSet(const std::string& key, const std::string& expected,
                                              const std::string& desired) override {
      return store_.CompareAndSet(prefix_ + key, expected, desired);
    }
    absl::StatusOr<bool> Check(const std::vector<std::string>& keys) override {
      return store_.Check(WithPrefix(keys));
    }
    absl::Status Wait(const std::vector<std::string>& keys, absl::Duration timeout) override {
      return store_.Wait(WithPrefix(keys), timeout);
    }
    absl::StatusOr<bool> Delete(const std::string& key) override {
      return store_.Delete(prefix_ + key);
    }
    absl::StatusOr<int64_t> NumKeys() override { return store_.NumKeys(); }
    void Cancel() override {}

   private:
    std::vector<std::string> WithPrefix(std::vector<std::string> keys) const {
      for (std::string& key : keys) key = prefix_ + key;
      return keys;
    }
    const std::string prefix_;
    KeyValueStore& store_;
  };
  MemoryKeyValueStore store;
  const at::Tensor tensor = PatternTensor(c10::kFloat, 4000, 1);
  for (int generation = 1; generation <= 3; ++generation) {
    testutil::RunRanks(2, [&](Rank rank) {
      auto transport = MakeGlooTransport(Options(
          rank.value(), 2, std::make_shared<Prefixed>(absl::StrCat("g", generation, "/"), store)));
      ASSERT_TRUE(transport.ok()) << transport.status();
      EXPECT_EQ(rank == Rank(0)
                    ? testutil::SendAndWait(**transport, Rank(1), ChannelKind::kState, tensor)
                    : testutil::ReceiveAndWait(**transport, Rank(0), ChannelKind::kState,
                                               EmptyLike(tensor)),
                absl::OkStatus());
    });
  }
}

TEST(GlooTransport, MissingRanksAreNamed) {
  auto store = std::make_shared<MemoryKeyValueStore>();
  testutil::RunRanks(2, [&](Rank rank) {
    TransportOptions options = Options(rank.value(), 4, store);
    options.connect_timeout = absl::Milliseconds(300);
    const absl::Status status = MakeGlooTransport(options).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
    EXPECT_EQ(status.message(),
              "waited 0.3 s for rank 2 (w2), rank 3 (w3); 2 of 4 workers are ready to connect");
  });
}

// A rank that is announced and then never connects, as one that dies in between.
TEST(GlooTransport, RankThatDoesNotConnectEndsTheOthers) {
  auto store = std::make_shared<MemoryKeyValueStore>();
  ASSERT_EQ(store->Set("transport/rank/1", "here"), absl::OkStatus());
  TransportOptions options = Options(0, 2, store);
  options.connect_timeout = absl::Milliseconds(300);
  const absl::Time before = absl::Now();
  const absl::Status status = MakeGlooTransport(options).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("all 2 workers came, but they cannot connect: waited"));
  EXPECT_LT(absl::Now() - before, absl::Seconds(5));
}

TEST(GlooTransport, CancelledStoreEndsConnecting) {
  for (const bool announced : {false, true}) {
    auto store = std::make_shared<MemoryKeyValueStore>();
    if (announced) {
      ASSERT_EQ(store->Set("transport/rank/1", "here"), absl::OkStatus());
    }
    absl::Status status;
    std::thread connect([&] { status = MakeGlooTransport(Options(0, 2, store)).status(); });
    ASSERT_EQ(store->Wait({"transport/rank/0"}, absl::Seconds(60)), absl::OkStatus());
    store->Cancel();
    connect.join();
    EXPECT_EQ(status.code(), absl::StatusCode::kCancelled) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("the rendezvous store was closed"));
  }
}

TEST(GlooTransport, BindsToAnAddressOrAnInterface) {
  for (const char* address : {"127.0.0.1", "lo"}) {
    auto store = std::make_shared<MemoryKeyValueStore>();
    testutil::RunRanks(2, [&](Rank rank) {
      TransportOptions options = Options(rank.value(), 2, store);
      options.bind_address = address;
      EXPECT_EQ(MakeGlooTransport(options).status(), absl::OkStatus()) << address;
    });
  }
}

TEST(GlooTransport, RefusesBadOptions) {
  auto store = std::make_shared<MemoryKeyValueStore>();
  auto expect_invalid = [](const TransportOptions& options, const std::string& text) {
    const absl::Status status = MakeGlooTransport(options).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(text));
  };
  expect_invalid(Options(2, 2, store), "rank 2 is not in a group of 2");
  expect_invalid(Options(-1, 2, store), "rank -1 is not in a group of 2");
  expect_invalid(Options(0, 0, store), "rank 0 is not in a group of 0");
  expect_invalid(Options(0, 2, nullptr), "rendezvous store");
  TransportOptions cuda = Options(0, 1, store);
  cuda.device = "cuda:0";
  expect_invalid(cuda, "cuda:0");
  TransportOptions elsewhere = Options(0, 2, store);
  elsewhere.bind_address = "192.0.2.1";  // reserved for documentation: no machine has it
  expect_invalid(elsewhere,
                 "\"192.0.2.1\" is neither an address nor a network interface of this machine");
  EXPECT_EQ(*store->NumKeys(), 0) << "a rank that cannot start does not announce itself";
}

}  // namespace
}  // namespace smartpipe
