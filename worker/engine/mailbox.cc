#include "worker/engine/mailbox.h"

#include <algorithm>

#include "ATen/ops/empty.h"
#include "ATen/ops/zeros.h"
#include "services/base/status_macros.h"
#include "worker/engine/work_times.h"

namespace smartpipe {

absl::Status Inbox::Expect(StageIndex stage, MicrobatchIndex microbatch,
                           std::vector<int64_t> shape) {
  expected_.push_back({{stage, microbatch}, std::move(shape)});
  return Post();
}

// What has arrived before its turn holds its credit: the messages before the awaited one on other
// edges are never more than those edges' own credits, so the awaited one is always posted.
absl::Status Inbox::Post() {
  while (!expected_.empty() && posted_.size() + arrived_.size() + (taken_ ? 1 : 0) < credits_) {
    at::Tensor buffer =
        at::empty(expected_.front().second, at::TensorOptions(at::kFloat).device(device_));
    SP_ASSIGN_OR_RETURN(std::unique_ptr<Transfer> transfer,
                        transport_->Receive(from_, kind_, buffer));
    posted_.push_back({expected_.front().first, std::move(buffer), std::move(transfer)});
    expected_.pop_front();
  }
  return absl::OkStatus();
}

absl::StatusOr<at::Tensor> Inbox::Take(StageIndex stage, MicrobatchIndex microbatch) {
  const Key key(stage, microbatch);
  at::Tensor tensor;
  while (!tensor.defined()) {
    if (auto found = arrived_.extract(key); !found.empty()) {
      tensor = std::move(found.mapped());
      break;
    }
    if (posted_.empty())
      return absl::InternalError("a message is awaited that was never announced");
    SP_RETURN_IF_ERROR(posted_.front().transfer->Wait());
    Posted next = std::move(posted_.front());
    posted_.pop_front();
    if (next.key == key) {
      tensor = std::move(next.buffer);
    } else {
      arrived_[next.key] = std::move(next.buffer);
    }
  }
  taken_ = true;
  return tensor;
}

absl::Status Inbox::Release() {
  taken_ = false;
  return Post();
}

absl::Status Outbox::Send(const at::Tensor& tensor) {
  while (!under_way_.empty() && under_way_.front()->Done()) SP_RETURN_IF_ERROR(WaitOldest());
  while (under_way_.size() >= credits_) SP_RETURN_IF_ERROR(WaitOldest());
  SP_ASSIGN_OR_RETURN(std::unique_ptr<Transfer> transfer, transport_->Send(to_, kind_, tensor));
  under_way_.push_back(std::move(transfer));
  bytes_sent_ += static_cast<int64_t>(tensor.nbytes());
  return absl::OkStatus();
}

absl::Status Outbox::WaitOldest() {
  SP_RETURN_IF_ERROR(under_way_.front()->Wait());
  under_way_.pop_front();
  return absl::OkStatus();
}

absl::Status Outbox::Drain() {
  while (!under_way_.empty()) SP_RETURN_IF_ERROR(WaitOldest());
  return absl::OkStatus();
}

absl::Status SendPacked(Transport& transport, Rank to, const at::Tensor& packed) {
  at::Tensor size = at::empty({1}, at::kLong);
  *size.data_ptr<int64_t>() = packed.numel();
  SP_ASSIGN_OR_RETURN(std::unique_ptr<Transfer> header,
                      transport.Send(to, ChannelKind::kState, size));
  SP_RETURN_IF_ERROR(header->Wait());
  SP_ASSIGN_OR_RETURN(std::unique_ptr<Transfer> body,
                      transport.Send(to, ChannelKind::kState, packed));
  return body->Wait();
}

absl::StatusOr<at::Tensor> ReceivePacked(Transport& transport, Rank from, Stopwatch* watch) {
  at::Tensor size = at::empty({1}, at::kLong);
  SP_ASSIGN_OR_RETURN(std::unique_ptr<Transfer> header,
                      transport.Receive(from, ChannelKind::kState, size));
  SP_RETURN_IF_ERROR(header->Wait());
  if (watch != nullptr) watch->Restart();
  at::Tensor packed = at::empty({*size.data_ptr<int64_t>()}, at::kByte);
  SP_ASSIGN_OR_RETURN(std::unique_ptr<Transfer> body,
                      transport.Receive(from, ChannelKind::kState, packed));
  SP_RETURN_IF_ERROR(body->Wait());
  return packed;
}

namespace {

constexpr int kLinkRounds = 4;  // the first one warms up
constexpr int64_t kSmallBytes = 64, kLargeBytes = int64_t{1} << 20;

// Best time of one message there and back.
absl::StatusOr<double> RoundTrip(Transport& transport, Rank peer, int64_t num_bytes, bool asks,
                                 at::Device device) {
  // Host tensors have always gone as state; those of a device use the ways of activations and
  // gradients, so that no others are made for it.
  const bool on_host = device.is_cpu();
  double best_s = 0;
  for (int round = 0; round < kLinkRounds; ++round) {
    const Stopwatch watch;
    for (bool send : {asks, !asks}) {
      at::Tensor tensor = at::zeros({num_bytes}, at::TensorOptions(at::kByte).device(device));
      const ChannelKind kind = on_host        ? ChannelKind::kState
                               : send == asks ? ChannelKind::kActivation
                                              : ChannelKind::kGradient;
      SP_ASSIGN_OR_RETURN(
          const std::unique_ptr<Transfer> transfer,
          send ? transport.Send(peer, kind, tensor) : transport.Receive(peer, kind, tensor));
      SP_RETURN_IF_ERROR(transfer->Wait());
      if (!on_host) RecordEvent(device)->synchronize();
    }
    const double round_s = watch.seconds();
    if (round == 1 || (round > 1 && round_s < best_s)) best_s = round_s;
  }
  return best_s;
}

}  // namespace

absl::StatusOr<LinkSpeed> MeasureLink(Transport& transport, at::Device device) {
  LinkSpeed speed;
  const Rank rank = transport.rank();
  if (rank.value() > 0) {
    for (int64_t num_bytes : {kSmallBytes, kLargeBytes}) {
      SP_RETURN_IF_ERROR(
          RoundTrip(transport, rank - 1, num_bytes, /*asks=*/false, device).status());
    }
  }
  if (rank.value() + 1 == transport.size()) return speed;
  SP_ASSIGN_OR_RETURN(const double small_s,
                      RoundTrip(transport, rank + 1, kSmallBytes, true, device));
  SP_ASSIGN_OR_RETURN(const double large_s,
                      RoundTrip(transport, rank + 1, kLargeBytes, true, device));
  speed.latency_s = small_s / 2;
  // At worst all of the large message's time is transfer.
  const double transfer_s = large_s > small_s ? (large_s - small_s) / 2 : large_s / 2;
  speed.bytes_per_s = static_cast<double>(kLargeBytes) / transfer_s;
  return speed;
}

absl::Status Barrier(Transport& transport) {
  const Rank root(0);
  auto send = [&](Rank to) -> absl::Status {
    SP_ASSIGN_OR_RETURN(std::unique_ptr<Transfer> transfer,
                        transport.Send(to, ChannelKind::kState, at::zeros({1}, at::kLong)));
    return transfer->Wait();
  };
  auto receive = [&](Rank from) -> absl::Status {
    SP_ASSIGN_OR_RETURN(std::unique_ptr<Transfer> transfer,
                        transport.Receive(from, ChannelKind::kState, at::zeros({1}, at::kLong)));
    return transfer->Wait();
  };
  if (transport.rank() != root) {
    SP_RETURN_IF_ERROR(send(root));
    return receive(root);
  }
  for (Rank peer(1); peer.value() < transport.size(); ++peer) SP_RETURN_IF_ERROR(receive(peer));
  for (Rank peer(1); peer.value() < transport.size(); ++peer) SP_RETURN_IF_ERROR(send(peer));
  return absl::OkStatus();
}

}  // namespace smartpipe
