// Order and contents under load: many transfers under way on every channel of a group, in random
// interleavings.
#include <algorithm>
#include <deque>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "tests/component/transport/rank_group.h"
#include "tests/testutil/seed.h"
#include "worker/comm/transport.h"

namespace smartpipe {
namespace {

using testutil::EmptyLike;
using testutil::PatternTensor;
using testutil::TransportKind;

struct Message {
  Rank from, to;
  ChannelKind kind;
  c10::ScalarType type;
  int64_t num_bytes;
  uint64_t contents;  // seed of its bytes
  std::string Describe() const {
    return absl::StrCat("message with contents ", contents, " of ", num_bytes, " bytes from ",
                        from.value(), " to ", to.value(), ", kind ", static_cast<int>(kind));
  }
};

// Mostly small, sometimes large; a quarter has equal size, so that only the order tells them apart.
std::vector<Message> RandomMessages(std::mt19937_64& random, int32_t num_ranks, int count,
                                    int64_t bytes_max) {
  auto draw = [&random](uint64_t bound) { return random() % bound; };
  constexpr c10::ScalarType kTypes[] = {c10::kChar, c10::kFloat, c10::kLong};
  std::vector<Message> messages;
  for (int i = 0; i < count; ++i) {
    const auto from = static_cast<int32_t>(draw(num_ranks));
    const auto to = static_cast<int32_t>((from + 1 + draw(num_ranks - 1)) % num_ranks);
    const int64_t size_class = std::min<int64_t>(bytes_max, int64_t{1} << draw(25));
    const bool equal = draw(4) == 0;
    messages.push_back({.from = Rank(from),
                        .to = Rank(to),
                        .kind = static_cast<ChannelKind>(draw(3)),
                        .type = equal ? c10::kFloat : kTypes[draw(3)],
                        .num_bytes = equal ? 4096 : static_cast<int64_t>(1 + draw(size_class)),
                        .contents = draw(1'000'000)});
  }
  return messages;
}

struct UnderWay {
  const Message* message;
  bool is_send;
  at::Tensor tensor;
  std::unique_ptr<Transfer> transfer;
};

void Start(Transport& transport, const Message& message, bool is_send,
           std::deque<UnderWay>& under_way) {
  at::Tensor tensor = PatternTensor(message.type, message.num_bytes, message.contents);
  if (!is_send) tensor = EmptyLike(tensor);
  absl::StatusOr<std::unique_ptr<Transfer>> transfer =
      is_send ? transport.Send(message.to, message.kind, tensor)
              : transport.Receive(message.from, message.kind, tensor);
  ASSERT_TRUE(transfer.ok()) << transfer.status();
  under_way.push_back({&message, is_send, std::move(tensor), *std::move(transfer)});
}

void Finish(UnderWay entry) {
  ASSERT_EQ(entry.transfer->Wait(), absl::OkStatus()) << entry.message->Describe();
  if (entry.is_send) return;
  const Message& message = *entry.message;
  EXPECT_TRUE(testutil::SameBytes(entry.tensor,
                                  PatternTensor(message.type, message.num_bytes, message.contents)))
      << message.Describe();
}

class TransportStress : public testing::TestWithParam<TransportKind> {};

// Every rank walks the same list and keeps at most `window` transfers under way, waiting for the
// oldest: the first unfinished message of the list is always posted on both sides, so this cannot
// deadlock.
TEST_P(TransportStress, WindowOfTransfers) {
  std::mt19937_64 random(testutil::TestSeed());
  for (const auto& [num_ranks, count, window, bytes_max] :
       std::vector<std::tuple<int32_t, int, size_t, int64_t>>{{2, 400, 32, 16 << 20},
                                                              {4, 1200, 20, 1 << 16}}) {
    const std::vector<Message> messages = RandomMessages(random, num_ranks, count, bytes_max);
    const auto transports = GetParam().make(num_ranks, absl::Seconds(60));
    const uint64_t rank_seed = random();
    testutil::RunRanks(num_ranks, [&, window = window](Rank rank) {
      std::mt19937_64 rank_random(rank_seed + static_cast<uint64_t>(rank.value()));
      Transport& transport = *transports[static_cast<size_t>(rank.value())];
      std::deque<UnderWay> under_way;
      for (const Message& message : messages) {
        if (message.from != rank && message.to != rank) continue;
        Start(transport, message, message.from == rank, under_way);
        if (HasFatalFailure()) return;
        if (rank_random() % 4 == 0) under_way[rank_random() % under_way.size()].transfer->Done();
        if (under_way.size() < window) continue;
        Finish(std::move(under_way.front()));
        under_way.pop_front();
      }
      while (!under_way.empty()) {
        Finish(std::move(under_way.front()));
        under_way.pop_front();
      }
    });
  }
}

// All transfers are posted, each rank in an order of its own across channels, and waited for in
// another.
TEST_P(TransportStress, AnyInterleavingAcrossChannels) {
  std::mt19937_64 random(testutil::TestSeed() + 1);
  for (int round = 0; round < 5; ++round) {
    constexpr int32_t kNumRanks = 3;
    const std::vector<Message> messages = RandomMessages(random, kNumRanks, 500, 1 << 14);
    const auto transports = GetParam().make(kNumRanks, absl::Seconds(60));
    const uint64_t rank_seed = random();
    testutil::RunRanks(kNumRanks, [&](Rank rank) {
      std::mt19937_64 rank_random(rank_seed + static_cast<uint64_t>(rank.value()));
      Transport& transport = *transports[static_cast<size_t>(rank.value())];
      // Per channel in order, across channels at random.
      std::map<std::tuple<Rank, Rank, ChannelKind>, std::deque<const Message*>> channels;
      for (const Message& message : messages) {
        if (message.from != rank && message.to != rank) continue;
        channels[{message.from, message.to, message.kind}].push_back(&message);
      }
      std::deque<UnderWay> under_way;
      while (!channels.empty()) {
        auto channel = channels.begin();
        std::advance(channel, rank_random() % channels.size());
        const Message& message = *channel->second.front();
        channel->second.pop_front();
        if (channel->second.empty()) channels.erase(channel);
        Start(transport, message, message.from == rank, under_way);
        if (HasFatalFailure()) return;
      }
      std::shuffle(under_way.begin(), under_way.end(), rank_random);
      for (UnderWay& entry : under_way) Finish(std::move(entry));
    });
  }
}

INSTANTIATE_TEST_SUITE_P(Transports, TransportStress,
                         testing::Values(testutil::GlooKind(),
                                         testutil::LoopbackKind(/*rendezvous=*/true),
                                         testutil::LoopbackKind(/*rendezvous=*/false)),
                         [](const testing::TestParamInfo<TransportKind>& info) {
                           return info.param.name;
                         });

}  // namespace
}  // namespace smartpipe
