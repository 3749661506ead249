// What every transport promises (worker/comm/transport.h). A new transport is one line at the end.
#include <ctime>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/component/transport/rank_group.h"
#ifdef SMARTPIPE_FAKE_NCCL
#include "tests/component/transport/fake_nccl.h"
#endif
#include "tests/testutil/test_device.h"
#include "worker/comm/transport.h"

namespace smartpipe {
namespace {

using testing::HasSubstr;
using testutil::EmptyLike;
using testutil::PatternTensor;
using testutil::ReceiveAndWait;
using testutil::RunRanks;
using testutil::SameBytes;
using testutil::SendAndWait;
using testutil::TransportKind;

constexpr absl::Duration kLong = absl::Seconds(60);
constexpr absl::Duration kShort = absl::Milliseconds(200);
constexpr ChannelKind kKinds[] = {ChannelKind::kActivation, ChannelKind::kGradient,
                                  ChannelKind::kState};

class TransportConformance : public testing::TestWithParam<TransportKind> {
 protected:
  void MakeGroup(int32_t size, absl::Duration transfer_timeout = kLong) {
    transports_ = GetParam().make(size, transfer_timeout);
    ASSERT_EQ(transports_.size(), static_cast<size_t>(size));
  }
  Transport& At(Rank rank) { return *transports_[static_cast<size_t>(rank.value())]; }
  Transport& At(int32_t rank) { return At(Rank(rank)); }
  void Close(int32_t rank) { transports_[static_cast<size_t>(rank)].reset(); }
  // How messages call a rank.
  std::string Name(int32_t rank) {
    return GetParam().names_members ? absl::StrCat("rank ", rank, " (w", rank, ")")
                                    : absl::StrCat("rank ", rank);
  }
  std::unique_ptr<Transfer> Send(int32_t from, int32_t to, ChannelKind kind,
                                 const at::Tensor& tensor) {
    absl::StatusOr<std::unique_ptr<Transfer>> transfer = At(from).Send(Rank(to), kind, tensor);
    EXPECT_TRUE(transfer.ok()) << transfer.status();
    return transfer.ok() ? *std::move(transfer) : nullptr;
  }
  std::unique_ptr<Transfer> Receive(int32_t at, int32_t from, ChannelKind kind, at::Tensor tensor) {
    absl::StatusOr<std::unique_ptr<Transfer>> transfer =
        At(at).Receive(Rank(from), kind, std::move(tensor));
    EXPECT_TRUE(transfer.ok()) << transfer.status();
    return transfer.ok() ? *std::move(transfer) : nullptr;
  }

 private:
  std::vector<std::unique_ptr<Transport>> transports_;
};

TEST_P(TransportConformance, KnowsItsPlace) {
  MakeGroup(3);
  for (int32_t rank = 0; rank < 3; ++rank) {
    EXPECT_EQ(At(rank).rank(), Rank(rank));
    EXPECT_EQ(At(rank).size(), 3);
  }
}

TEST_P(TransportConformance, MovesEverySizeAndType) {
  MakeGroup(2);
  uint64_t seed = 0;
  for (const c10::ScalarType type : {c10::kChar, c10::kFloat, c10::kLong}) {
    for (const int64_t num_bytes : {0, 1, 8, 63, 4096, 65'537, 1 << 20, 16 << 20}) {
      const at::Tensor sent = PatternTensor(type, num_bytes, ++seed);
      at::Tensor received = EmptyLike(sent);
      auto receive = Receive(1, 0, ChannelKind::kState, received);
      auto send = Send(0, 1, ChannelKind::kState, sent);
      EXPECT_EQ(receive->Wait(), absl::OkStatus());
      EXPECT_EQ(send->Wait(), absl::OkStatus());
      EXPECT_TRUE(SameBytes(sent, received)) << type << " of " << num_bytes << " bytes";
    }
  }
}

TEST_P(TransportConformance, SendMayComeLongBeforeReceive) {
  MakeGroup(2);
  std::vector<at::Tensor> sent, received;
  std::vector<std::unique_ptr<Transfer>> transfers;
  for (uint64_t i = 0; i < 50; ++i) {
    sent.push_back(PatternTensor(c10::kFloat, 40'000, i));
    transfers.push_back(Send(0, 1, ChannelKind::kActivation, sent.back()));
  }
  for (const at::Tensor& tensor : sent) {
    received.push_back(EmptyLike(tensor));
    transfers.push_back(Receive(1, 0, ChannelKind::kActivation, received.back()));
  }
  for (auto& transfer : transfers) EXPECT_EQ(transfer->Wait(), absl::OkStatus());
  for (size_t i = 0; i < sent.size(); ++i)
    EXPECT_TRUE(SameBytes(sent[i], received[i])) << "message " << i;
}

// Equal shapes on all three kinds at once: only the kind keeps them apart.
TEST_P(TransportConformance, KindsHaveOrdersOfTheirOwn) {
  MakeGroup(2);
  std::vector<at::Tensor> sent, received(3);
  std::vector<std::unique_ptr<Transfer>> transfers;
  for (int i = 0; i < 3; ++i) {
    sent.push_back(PatternTensor(c10::kFloat, 4000, static_cast<uint64_t>(i)));
    transfers.push_back(Send(0, 1, kKinds[i], sent.back()));
  }
  for (int i = 2; i >= 0; --i) {
    received[i] = EmptyLike(sent[i]);
    transfers.push_back(Receive(1, 0, kKinds[i], received[i]));
  }
  for (auto& transfer : transfers) EXPECT_EQ(transfer->Wait(), absl::OkStatus());
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(SameBytes(sent[i], received[i])) << "kind " << i;
}

TEST_P(TransportConformance, DoneTurnsTrueWithoutWait) {
  MakeGroup(2);
  const at::Tensor sent = PatternTensor(c10::kFloat, 4000, 1);
  auto send = Send(0, 1, ChannelKind::kActivation, sent);
  auto receive = Receive(1, 0, ChannelKind::kActivation, EmptyLike(sent));
  while (!send->Done() || !receive->Done()) std::this_thread::yield();
  EXPECT_EQ(send->Wait(), absl::OkStatus());
  EXPECT_EQ(receive->Wait(), absl::OkStatus());
  EXPECT_EQ(receive->Wait(), absl::OkStatus()) << "Wait may be repeated";
}

TEST_P(TransportConformance, AskingDoneBlocksNobodyElse) {
  MakeGroup(2);
  const at::Tensor sent = PatternTensor(c10::kFloat, 4000, 1);
  auto stuck = Send(0, 1, ChannelKind::kActivation, sent);
  EXPECT_EQ(stuck->Done(), GetParam().buffers_sends);
  auto other = Send(0, 1, ChannelKind::kGradient, sent);
  other->Done();
  EXPECT_EQ(ReceiveAndWait(At(1), Rank(0), ChannelKind::kGradient, EmptyLike(sent)),
            absl::OkStatus());
  EXPECT_EQ(other->Wait(), absl::OkStatus());
  EXPECT_EQ(stuck->Done(), GetParam().buffers_sends);
  EXPECT_EQ(ReceiveAndWait(At(1), Rank(0), ChannelKind::kActivation, EmptyLike(sent)),
            absl::OkStatus());
  EXPECT_EQ(stuck->Wait(), absl::OkStatus());
}

TEST_P(TransportConformance, DroppedTransferStillArrives) {
  MakeGroup(2);
  const at::Tensor sent = PatternTensor(c10::kFloat, 1 << 20, 1);
  at::Tensor received = EmptyLike(sent);
  { auto dropped = Send(0, 1, ChannelKind::kActivation, sent.clone()); }
  EXPECT_EQ(ReceiveAndWait(At(1), Rank(0), ChannelKind::kActivation, received), absl::OkStatus());
  EXPECT_TRUE(SameBytes(sent, received));
}

TEST_P(TransportConformance, WhatWasSentArrivesThoughTheSenderLeaves) {
  MakeGroup(2);
  const at::Tensor sent = PatternTensor(c10::kFloat, 16 << 20, 1);
  at::Tensor received = EmptyLike(sent);
  auto receive = Receive(1, 0, ChannelKind::kActivation, received);
  EXPECT_EQ(SendAndWait(At(0), Rank(1), ChannelKind::kActivation, sent), absl::OkStatus());
  Close(0);
  EXPECT_EQ(receive->Wait(), absl::OkStatus());
  EXPECT_TRUE(SameBytes(sent, received));
}

TEST_P(TransportConformance, AbortEndsABlockedWaitAndItsPeers) {
  for (int round = 0; round < 5; ++round) {
    MakeGroup(3);
    const at::Tensor tensor = PatternTensor(c10::kFloat, 4000, 1);
    auto pending = Receive(1, 0, ChannelKind::kGradient, EmptyLike(tensor));
    auto watched = Receive(1, 2, ChannelKind::kGradient, EmptyLike(tensor));
    EXPECT_FALSE(watched->Done());
    absl::Notification waiting;
    absl::Time aborted_at, ended_at;
    std::thread compute([&] {
      auto blocked = Receive(1, 0, ChannelKind::kActivation, EmptyLike(tensor));
      waiting.Notify();
      const absl::Status status = blocked->Wait();
      ended_at = absl::Now();
      EXPECT_EQ(status.code(), absl::StatusCode::kCancelled) << status;
      EXPECT_THAT(std::string(status.message()), HasSubstr("worker w2 was lost"));
    });
    std::thread peer([&] {
      const absl::Status status =
          ReceiveAndWait(At(0), Rank(1), ChannelKind::kState, EmptyLike(tensor));
      EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
      EXPECT_THAT(std::string(status.message()), HasSubstr(Name(1) + " closed the connection"));
    });
    waiting.WaitForNotification();
    aborted_at = absl::Now();
    At(1).Abort(absl::UnavailableError("worker w2 was lost"));
    At(1).Abort(absl::InternalError("the first reason stays"));
    compute.join();
    peer.join();
    EXPECT_LT(ended_at - aborted_at, absl::Seconds(1));
    EXPECT_TRUE(pending->Done());
    EXPECT_TRUE(watched->Done());
    for (const absl::Status& status :
         {pending->Wait(), watched->Wait(),
          SendAndWait(At(1), Rank(0), ChannelKind::kActivation, tensor),
          ReceiveAndWait(At(1), Rank(2), ChannelKind::kActivation, EmptyLike(tensor))}) {
      EXPECT_EQ(status.code(), absl::StatusCode::kCancelled) << status;
      EXPECT_THAT(std::string(status.message()), HasSubstr("worker w2 was lost"));
    }
    // Later transfers with the closed rank fail as well; the others' connection lives.
    EXPECT_EQ(SendAndWait(At(0), Rank(1), ChannelKind::kState, tensor).code(),
              absl::StatusCode::kUnavailable);
    auto receive = Receive(2, 0, ChannelKind::kState, EmptyLike(tensor));
    EXPECT_EQ(SendAndWait(At(0), Rank(2), ChannelKind::kState, tensor), absl::OkStatus());
    EXPECT_EQ(receive->Wait(), absl::OkStatus());
  }
}

// Aborts that race with sends, receives and Done of the compute threads.
TEST_P(TransportConformance, AbortAtAnyMomentIsSafe) {
  for (int round = 0; round < 20; ++round) {
    MakeGroup(2);
    const at::Tensor tensor = PatternTensor(c10::kFloat, 100'000, 1);
    absl::Notification first_message;
    std::thread control([&] {
      first_message.WaitForNotification();
      At(round % 2).Abort(absl::CancelledError("stop"));
    });
    RunRanks(2, [&](Rank rank) {
      const Rank peer(1 - rank.value());
      for (int i = 0;; ++i) {
        auto receive = At(rank).Receive(peer, ChannelKind::kActivation, EmptyLike(tensor));
        auto send = At(rank).Send(peer, ChannelKind::kActivation, tensor);
        if (receive.ok()) (*receive)->Done();
        if (send.ok() && i % 3 == 0) (*send)->Done();
        absl::Status status = receive.ok() ? (*receive)->Wait() : receive.status();
        if (status.ok()) status = send.ok() ? (*send)->Wait() : send.status();
        if (i == round % 4 && rank == Rank(0)) first_message.Notify();
        if (status.ok()) continue;
        EXPECT_EQ(status.code(), rank == Rank(round % 2) ? absl::StatusCode::kCancelled
                                                         : absl::StatusCode::kUnavailable)
            << status;
        return;
      }
    });
    control.join();
  }
}

TEST_P(TransportConformance, LeavingPeerIsNamed) {
  MakeGroup(3);
  const at::Tensor tensor = PatternTensor(c10::kFloat, 4000, 1);
  auto receive = Receive(0, 2, ChannelKind::kActivation, EmptyLike(tensor));
  Close(2);
  const absl::Status status = receive->Wait();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(Name(2) + " closed the connection"));
  auto other = Receive(0, 1, ChannelKind::kActivation, EmptyLike(tensor));
  EXPECT_EQ(SendAndWait(At(1), Rank(0), ChannelKind::kActivation, tensor), absl::OkStatus());
  EXPECT_EQ(other->Wait(), absl::OkStatus());
}

TEST_P(TransportConformance, SilentPeerIsNamedAfterTheDeadlineWithoutSpinning) {
  MakeGroup(2, kShort);
  const at::Tensor tensor = PatternTensor(c10::kFloat, 4000, 1);
  auto at_peer = Receive(0, 1, ChannelKind::kState, EmptyLike(tensor));
  const std::clock_t cpu_before = std::clock();
  const absl::Time before = absl::Now();
  const absl::Status status =
      ReceiveAndWait(At(1), Rank(0), ChannelKind::kActivation, EmptyLike(tensor));
  const double cpu_seconds = static_cast<double>(std::clock() - cpu_before) / CLOCKS_PER_SEC;
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded) << status;
  EXPECT_THAT(std::string(status.message()),
              HasSubstr(Name(0) + " did not send activation message 0"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("within 0.2 s"));
  EXPECT_GE(absl::Now() - before, kShort);
  // A thread that waits for a GPU spins.
  if (!GetParam().on_gpus) {
    EXPECT_LT(cpu_seconds, 0.1) << "all threads of this process, over 0.2 s";
  }
  // The connections are given up, so that the peer does not wait for its own deadline.
  // NCCL's own deadline begins with the transfer, not with the wait.
  const absl::StatusCode at_peer_code = at_peer->Wait().code();
  EXPECT_TRUE(at_peer_code == absl::StatusCode::kUnavailable ||
              (GetParam().on_gpus && at_peer_code == absl::StatusCode::kDeadlineExceeded))
      << at_peer_code;
  EXPECT_FALSE(SendAndWait(At(1), Rank(0), ChannelKind::kActivation, tensor).ok());
}

TEST_P(TransportConformance, ShapeAndTypeMismatchIsAnErrorOnBothSides) {
  if (GetParam().on_gpus) GTEST_SKIP() << "NCCL does not know shapes: they come from the plan";
  const at::Tensor sent = PatternTensor(c10::kFloat, 4000, 1);
  const at::Tensor expected[] = {PatternTensor(c10::kFloat, 3996, 0),
                                 PatternTensor(c10::kFloat, 4004, 0),
                                 PatternTensor(c10::kInt, 4000, 0), sent.view({10, 100})};
  for (const at::Tensor& other : expected) {
    MakeGroup(2, kShort);
    auto send = Send(0, 1, ChannelKind::kActivation, sent);
    const absl::Status status =
        ReceiveAndWait(At(1), Rank(0), ChannelKind::kActivation, EmptyLike(other));
    EXPECT_EQ(status.code(), GetParam().wrong_shape.code()) << status;
    EXPECT_EQ(send->Wait().ok(), GetParam().buffers_sends);
  }
}

TEST_P(TransportConformance, RefusesWrongUse) {
  if (GetParam().on_gpus) GTEST_SKIP() << "what is checked is the test's copy on a GPU";
  MakeGroup(2);
  const at::Tensor good = PatternTensor(c10::kFloat, 4000, 1);
  auto code = [](const absl::StatusOr<std::unique_ptr<Transfer>>& transfer) {
    return transfer.status().code();
  };
  constexpr absl::StatusCode kInvalid = absl::StatusCode::kInvalidArgument;
  for (const int32_t peer : {-1, 0, 2}) {
    EXPECT_EQ(code(At(0).Send(Rank(peer), ChannelKind::kState, good)), kInvalid) << peer;
    EXPECT_EQ(code(At(0).Receive(Rank(peer), ChannelKind::kState, good)), kInvalid) << peer;
  }
  EXPECT_EQ(code(At(0).Send(Rank(1), static_cast<ChannelKind>(3), good)), kInvalid);
  const at::Tensor transposed = PatternTensor(c10::kFloat, 4000, 1).view({10, 100}).t();
  EXPECT_EQ(code(At(0).Send(Rank(1), ChannelKind::kState, transposed)), kInvalid);
  EXPECT_EQ(code(At(0).Receive(Rank(1), ChannelKind::kState, transposed)), kInvalid);
  EXPECT_EQ(code(At(0).Send(Rank(1), ChannelKind::kState, at::Tensor())), kInvalid);
  EXPECT_EQ(code(At(0).Receive(Rank(1), ChannelKind::kState, at::Tensor())), kInvalid);
  EXPECT_EQ(code(At(0).Receive(Rank(1), ChannelKind::kState, good.narrow(0, 16, 100))), kInvalid)
      << "a view does not own its storage";
}

TEST_P(TransportConformance, GroupOfOneNeedsNobody) {
  MakeGroup(1);
  EXPECT_EQ(At(0).size(), 1);
  const at::Tensor tensor = PatternTensor(c10::kFloat, 4000, 1);
  EXPECT_EQ(At(0).Send(Rank(0), ChannelKind::kState, tensor).status().code(),
            absl::StatusCode::kInvalidArgument);
  At(0).Abort(absl::CancelledError("stop"));
}

TEST_P(TransportConformance, TransfersMayOutliveTheTransport) {
  MakeGroup(2);
  auto receive = Receive(0, 1, ChannelKind::kState, PatternTensor(c10::kFloat, 4000, 1));
  Close(0);
  EXPECT_EQ(receive->Wait().code(), absl::StatusCode::kCancelled);
}

// Groups of up to three ranks, a GPU for each.
constexpr int32_t kGpusWanted = 3;

std::vector<TransportKind> Kinds() {
#ifdef SMARTPIPE_FAKE_NCCL
  return {testutil::FakeNcclKind()};
#endif
  std::vector<TransportKind> kinds = {
      testutil::GlooKind(), testutil::LoopbackKind(/*rendezvous=*/true),
      testutil::LoopbackKind(/*rendezvous=*/false), testutil::StagedKind()};
  if (testutil::TestDevice() == "cuda" && testutil::NumGpus().value_or(0) >= kGpusWanted)
    kinds.push_back(testutil::NcclKind());
  return kinds;
}

#ifdef SMARTPIPE_FAKE_NCCL
TEST(NcclConformance, NothingIsLeftOfManyGroups) {
  const TransportKind kind = testutil::FakeNcclKind();
  const at::Tensor tensor = PatternTensor(c10::kFloat, 4000, 1);
  for (int round = 0; round < 20; ++round) {
    auto transports = kind.make(2, kLong);
    auto first = transports[0]->Send(Rank(1), ChannelKind::kActivation, tensor);
    EXPECT_EQ(ReceiveAndWait(*transports[1], Rank(0), ChannelKind::kActivation, EmptyLike(tensor)),
              absl::OkStatus());
    EXPECT_EQ(testutil::NumFakeCommunicators(), 2);
    // Some are aborted with a transfer under way, and with a channel that never connects.
    auto stuck = transports[0]->Receive(Rank(1), ChannelKind::kGradient, EmptyLike(tensor));
    if (round % 2 == 0) transports[0]->Abort(absl::UnavailableError("worker w1 was lost"));
    if (round % 3 == 0) {
      transports[1]->Receive(Rank(0), ChannelKind::kActivation, EmptyLike(tensor)).IgnoreError();
    }
    transports.clear();
    EXPECT_EQ(testutil::NumFakeCommunicators(), 0);
    EXPECT_EQ(testutil::NumFakeStreams(), 0);
  }
}

// What the reader of a number on the device asks: never OK when a message did not arrive.
TEST(NcclConformance, StatusTellsOfTransfersThatWereEnded) {
  const at::Tensor tensor = PatternTensor(c10::kFloat, 4000, 1);
  auto transports = testutil::FakeNcclKind().make(2, kLong);
  auto send = transports[0]->Send(Rank(1), ChannelKind::kActivation, tensor);
  EXPECT_EQ(ReceiveAndWait(*transports[1], Rank(0), ChannelKind::kActivation, EmptyLike(tensor)),
            absl::OkStatus());
  transports[0].reset();
  EXPECT_EQ(transports[1]->status(), absl::OkStatus()) << "who leaves when all is done is no fault";
  EXPECT_EQ(ReceiveAndWait(*transports[1], Rank(0), ChannelKind::kState, EmptyLike(tensor)).code(),
            absl::StatusCode::kUnavailable);
  EXPECT_EQ(transports[1]->status().code(), absl::StatusCode::kUnavailable);
}
#else
TEST(NcclConformance, HasItsRowInTheTable) {
  if (testutil::TestDevice() != "cuda")
    GTEST_SKIP() << "SMARTPIPE_TEST_DEVICE is not cuda: ./dev gpu-test on a machine with "
                 << kGpusWanted << " GPUs runs the tests above over NCCL";
  const absl::StatusOr<int32_t> num_gpus = testutil::NumGpus();
  ASSERT_TRUE(num_gpus.ok()) << num_gpus.status();
  if (*num_gpus < kGpusWanted) GTEST_SKIP() << *num_gpus << " of " << kGpusWanted << " GPUs";
}
#endif

INSTANTIATE_TEST_SUITE_P(Transports, TransportConformance, testing::ValuesIn(Kinds()),
                         [](const testing::TestParamInfo<TransportKind>& info) {
                           return info.param.name;
                         });

}  // namespace
}  // namespace smartpipe
