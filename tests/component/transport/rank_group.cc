#include "tests/component/transport/rank_group.h"

#include <cstring>
#include <thread>

#include "ATen/ops/empty.h"
#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "services/base/memory_key_value_store.h"
#include "services/base/status_macros.h"

namespace smartpipe::testutil {

std::vector<std::string> MemberNames(int32_t size) {
  std::vector<std::string> names;
  for (int32_t rank = 0; rank < size; ++rank) names.push_back(absl::StrCat("w", rank));
  return names;
}

void RunRanks(int32_t size, const std::function<void(Rank)>& body) {
  std::vector<std::thread> threads;
  for (Rank rank(0); rank.value() < size; ++rank)
    threads.emplace_back([&body, rank] { body(rank); });
  for (std::thread& thread : threads) thread.join();
}

TransportKind GlooKind() {
  return {.name = "Gloo",
          .names_members = true,
          .buffers_sends = false,
          .wrong_shape = absl::DeadlineExceededError(""),
          .make = [](int32_t size, absl::Duration transfer_timeout) {
            auto store = std::make_shared<MemoryKeyValueStore>();
            std::vector<std::unique_ptr<Transport>> transports(static_cast<size_t>(size));
            RunRanks(size, [&](Rank rank) {
              absl::StatusOr<std::unique_ptr<Transport>> transport =
                  MakeGlooTransport({.rank = rank,
                                     .size = size,
                                     .member_names = MemberNames(size),
                                     .store = store,
                                     .transfer_timeout = transfer_timeout});
              ASSERT_TRUE(transport.ok()) << transport.status();
              transports[static_cast<size_t>(rank.value())] = *std::move(transport);
            });
            return transports;
          }};
}

TransportKind LoopbackKind(bool rendezvous) {
  return {.name = rendezvous ? "LoopbackRendezvous" : "LoopbackBuffered",
          .names_members = false,
          .buffers_sends = !rendezvous,
          .wrong_shape = absl::InvalidArgumentError(""),
          .make = [rendezvous](int32_t size, absl::Duration transfer_timeout) {
            LoopbackHub hub(size, rendezvous, {}, transfer_timeout);
            std::vector<std::unique_ptr<Transport>> transports;
            for (Rank rank(0); rank.value() < size; ++rank)
              transports.push_back(hub.MakeTransport(rank));
            return transports;
          }};
}

absl::Status SendAndWait(Transport& transport, Rank to, ChannelKind kind,
                         const at::Tensor& tensor) {
  SP_ASSIGN_OR_RETURN(std::unique_ptr<Transfer> transfer, transport.Send(to, kind, tensor));
  return transfer->Wait();
}

absl::Status ReceiveAndWait(Transport& transport, Rank from, ChannelKind kind, at::Tensor tensor) {
  SP_ASSIGN_OR_RETURN(std::unique_ptr<Transfer> transfer,
                      transport.Receive(from, kind, std::move(tensor)));
  return transfer->Wait();
}

at::Tensor PatternTensor(c10::ScalarType type, int64_t num_bytes, uint64_t seed) {
  at::Tensor tensor = at::empty({num_bytes / static_cast<int64_t>(c10::elementSize(type))}, type);
  uint8_t* bytes = static_cast<uint8_t*>(tensor.data_ptr());
  uint64_t state = seed * 0x9e3779b97f4a7c15 + 1;
  for (size_t i = 0; i < tensor.nbytes(); ++i) {
    if (i % 8 == 0) state = state * 6364136223846793005 + 1442695040888963407;
    bytes[i] = static_cast<uint8_t>(state >> (8 * (i % 8)));
  }
  return tensor;
}

at::Tensor EmptyLike(const at::Tensor& tensor) {
  return at::empty(tensor.sizes(), tensor.scalar_type());
}

bool SameBytes(const at::Tensor& a, const at::Tensor& b) {
  return a.nbytes() == b.nbytes() &&
         (a.nbytes() == 0 || std::memcmp(a.data_ptr(), b.data_ptr(), a.nbytes()) == 0);
}

}  // namespace smartpipe::testutil
