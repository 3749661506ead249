#include "worker/engine/mailbox.h"

#include "ATen/ops/empty.h"
#include "ATen/ops/zeros.h"
#include "services/base/status_macros.h"

namespace smartpipe {

absl::Status Inbox::Expect(int64_t count, const std::vector<int64_t>& shape) {
  if (count > 0) expected_.push_back({count, shape});
  return Post();
}

absl::Status Inbox::Post() {
  while (!expected_.empty() && posted_.size() < credits_) {
    at::Tensor buffer = at::empty(expected_.front().shape, at::kFloat);
    SP_ASSIGN_OR_RETURN(std::unique_ptr<Transfer> transfer,
                        transport_->Receive(from_, kind_, buffer));
    posted_.emplace_back(std::move(buffer), std::move(transfer));
    if (--expected_.front().count == 0) expected_.pop_front();
  }
  return absl::OkStatus();
}

absl::StatusOr<at::Tensor> Inbox::Next() {
  if (posted_.empty()) return absl::InternalError("a message is awaited that was never announced");
  SP_RETURN_IF_ERROR(posted_.front().second->Wait());
  at::Tensor tensor = std::move(posted_.front().first);
  posted_.pop_front();
  SP_RETURN_IF_ERROR(Post());
  return tensor;
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

absl::StatusOr<at::Tensor> ReceivePacked(Transport& transport, Rank from) {
  at::Tensor size = at::empty({1}, at::kLong);
  SP_ASSIGN_OR_RETURN(std::unique_ptr<Transfer> header,
                      transport.Receive(from, ChannelKind::kState, size));
  SP_RETURN_IF_ERROR(header->Wait());
  at::Tensor packed = at::empty({*size.data_ptr<int64_t>()}, at::kByte);
  SP_ASSIGN_OR_RETURN(std::unique_ptr<Transfer> body,
                      transport.Receive(from, ChannelKind::kState, packed));
  SP_RETURN_IF_ERROR(body->Wait());
  return packed;
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
