// What only the loopback has: scripted faults, counts, the moment of the copy. The rest is
// tests/component/transport.
#include <cstring>
#include <memory>

#include "ATen/ops/empty.h"
#include "gtest/gtest.h"
#include "worker/comm/transport.h"

namespace smartpipe {
namespace {

at::Tensor Filled(int64_t numel, int byte) {
  at::Tensor tensor = at::empty({numel}, at::kChar);
  std::memset(tensor.data_ptr(), byte, tensor.nbytes());
  return tensor;
}
int FirstByte(const at::Tensor& tensor) {
  return *static_cast<const int8_t*>(tensor.const_data_ptr());
}

struct Pair {
  explicit Pair(LoopbackHub& hub)
      : zero(hub.MakeTransport(Rank(0))), one(hub.MakeTransport(Rank(1))) {}
  std::unique_ptr<Transport> zero, one;
};

TEST(LoopbackHub, FaultHitsOneMessageOnBothSides) {
  for (const bool rendezvous : {true, false}) {
    LoopbackHub hub(2, rendezvous,
                    {{.from = Rank(0),
                      .to = Rank(1),
                      .kind = ChannelKind::kGradient,
                      .message = 1,
                      .status = absl::DataLossError("scripted")}});
    Pair pair(hub);
    for (const ChannelKind kind : {ChannelKind::kActivation, ChannelKind::kGradient}) {
      for (int message = 0; message < 3; ++message) {
        at::Tensor received = Filled(4, 0);
        auto send = *pair.zero->Send(Rank(1), kind, Filled(4, 10 + message));
        auto receive = *pair.one->Receive(Rank(0), kind, received);
        const bool faulty = kind == ChannelKind::kGradient && message == 1;
        const absl::Status expected = faulty ? absl::DataLossError("scripted") : absl::OkStatus();
        EXPECT_EQ(send->Wait(), expected) << message;
        EXPECT_EQ(receive->Wait(), expected) << message;
        EXPECT_EQ(FirstByte(received), faulty ? 0 : 10 + message);
      }
    }
  }
}

TEST(LoopbackHub, CountsMessagesAndBytesPerKind) {
  LoopbackHub hub(2, /*rendezvous=*/false);
  Pair pair(hub);
  EXPECT_EQ(hub.num_messages(ChannelKind::kActivation), 0);
  (void)*pair.zero->Send(Rank(1), ChannelKind::kActivation, Filled(100, 1));
  (void)*pair.zero->Send(Rank(1), ChannelKind::kActivation, at::empty({25}, at::kFloat));
  (void)*pair.one->Send(Rank(0), ChannelKind::kGradient, Filled(7, 1));
  EXPECT_EQ(hub.num_messages(ChannelKind::kActivation), 2);
  EXPECT_EQ(hub.num_bytes(ChannelKind::kActivation), 200);
  EXPECT_EQ(hub.num_messages(ChannelKind::kGradient), 1);
  EXPECT_EQ(hub.num_bytes(ChannelKind::kGradient), 7);
  EXPECT_EQ(hub.num_messages(ChannelKind::kState), 0);
  EXPECT_EQ(hub.num_bytes(ChannelKind::kState), 0);
}

TEST(LoopbackHub, RendezvousCopiesWhenBothAreThere) {
  LoopbackHub hub(2, /*rendezvous=*/true);
  Pair pair(hub);
  at::Tensor sent = Filled(4, 1);
  auto send = *pair.zero->Send(Rank(1), ChannelKind::kState, sent);
  EXPECT_FALSE(send->Done());
  std::memset(sent.data_ptr(), 2, sent.nbytes());  // forbidden before Wait: this transport shows it
  at::Tensor received = Filled(4, 0);
  auto receive = *pair.one->Receive(Rank(0), ChannelKind::kState, received);
  EXPECT_TRUE(send->Done());
  EXPECT_TRUE(receive->Done());
  std::memset(sent.data_ptr(), 3, sent.nbytes());
  EXPECT_EQ(FirstByte(received), 2);
}

TEST(LoopbackHub, BufferedCopiesAtOnce) {
  LoopbackHub hub(2, /*rendezvous=*/false);
  Pair pair(hub);
  at::Tensor sent = Filled(4, 1);
  auto send = *pair.zero->Send(Rank(1), ChannelKind::kState, sent);
  EXPECT_TRUE(send->Done());
  std::memset(sent.data_ptr(), 2, sent.nbytes());
  pair.zero.reset();  // what was buffered still arrives
  at::Tensor received = Filled(4, 0);
  auto receive = *pair.one->Receive(Rank(0), ChannelKind::kState, received);
  EXPECT_EQ(receive->Wait(), absl::OkStatus());
  EXPECT_EQ(FirstByte(received), 1);
  auto none = *pair.one->Receive(Rank(0), ChannelKind::kState, received);
  EXPECT_EQ(none->Wait(), absl::UnavailableError("rank 0 closed the connection"));
}

TEST(LoopbackHub, TransportsOutliveTheHub) {
  auto hub = std::make_unique<LoopbackHub>(2);
  Pair pair(*hub);
  hub.reset();
  auto send = *pair.zero->Send(Rank(1), ChannelKind::kState, Filled(4, 1));
  auto receive = *pair.one->Receive(Rank(0), ChannelKind::kState, Filled(4, 0));
  EXPECT_EQ(send->Wait(), absl::OkStatus());
  EXPECT_EQ(receive->Wait(), absl::OkStatus());
}

}  // namespace
}  // namespace smartpipe
