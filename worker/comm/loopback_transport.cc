// Transport between threads of one process, for tests: the same promises as Gloo's, with memory
// instead of sockets.
#include <algorithm>
#include <array>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "services/base/status_macros.h"
#include "worker/comm/channel.h"
#include "worker/comm/transport.h"

namespace smartpipe {
namespace {

struct Operation {
  at::Tensor tensor;  // what is sent (in buffered mode a copy), or where to; reset at the end
  int64_t index = 0;  // number of the message on its channel, from 0
  bool ended = false;
  absl::Status status;

  void End(absl::Status with) {
    ended = true;
    status = std::move(with);
    tensor.reset();
  }
};
using OperationPtr = std::shared_ptr<Operation>;

struct Channel {
  std::deque<OperationPtr> sends;     // not yet received; in rendezvous mode also not yet ended
  std::deque<OperationPtr> receives;  // not yet ended
  std::deque<at::Tensor> buffered;    // buffered mode: the contents of `sends`
  int64_t num_sends = 0;
  int64_t num_receives = 0;
};

using ChannelKey = std::tuple<Rank, Rank, ChannelKind>;  // from, to, kind

}  // namespace

struct LoopbackHub::Shared {
  Shared(int32_t size, bool rendezvous, std::vector<Fault> faults, absl::Duration transfer_timeout)
      : size(size),
        rendezvous(rendezvous),
        faults(std::move(faults)),
        transfer_timeout(transfer_timeout),
        closed(static_cast<size_t>(size)) {}

  absl::StatusOr<OperationPtr> Start(bool is_send, Rank self, Rank peer, ChannelKind kind,
                                     const at::Tensor& tensor);
  absl::Status Wait(const OperationPtr& operation, bool is_send, Rank self, Rank peer,
                    ChannelKind kind);
  bool Done(const OperationPtr& operation) {
    absl::MutexLock lock(&mutex);
    return operation->ended;
  }
  /// Ends what is under way at `rank` with `status`, and at its peers with UNAVAILABLE; later
  /// transfers too.
  void Close(Rank rank, const absl::Status& status) {
    absl::MutexLock lock(&mutex);
    CloseLocked(rank, status);
  }
  absl::Status WhyClosed(Rank rank) {
    absl::MutexLock lock(&mutex);
    return ClosedStatus(rank);
  }

  const int32_t size;
  const bool rendezvous;
  const std::vector<Fault> faults;
  const absl::Duration transfer_timeout;
  mutable absl::Mutex mutex;
  std::array<int64_t, 3> num_messages ABSL_GUARDED_BY(mutex) = {};
  std::array<int64_t, 3> num_bytes ABSL_GUARDED_BY(mutex) = {};

 private:
  absl::Status& ClosedStatus(Rank rank) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    return closed[static_cast<size_t>(rank.value())];
  }
  void CloseLocked(Rank rank, const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex);
  void Match(const ChannelKey& key, Channel& channel) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex);

  std::vector<absl::Status> closed ABSL_GUARDED_BY(mutex);  // [rank]; OK while open
  std::map<ChannelKey, Channel> channels ABSL_GUARDED_BY(mutex);
};

namespace {

absl::Status PeerClosed(Rank peer) {
  return absl::UnavailableError(absl::StrCat(DescribeRank(peer, {}), " closed the connection"));
}

std::string DescribeMessage(ChannelKind kind, const Operation& operation) {
  return absl::StrCat(ChannelKindName(kind), " message ", operation.index, ", ",
                      DescribeTensor(operation.tensor));
}

}  // namespace

absl::StatusOr<OperationPtr> LoopbackHub::Shared::Start(bool is_send, Rank self, Rank peer,
                                                        ChannelKind kind,
                                                        const at::Tensor& tensor) {
  SP_RETURN_IF_ERROR(CheckChannel(self, size, peer, kind));
  SP_RETURN_IF_ERROR(is_send ? CheckSendTensor(tensor) : CheckReceiveTensor(tensor));
  const ChannelKey key = is_send ? ChannelKey(self, peer, kind) : ChannelKey(peer, self, kind);
  auto operation = std::make_shared<Operation>();
  operation->tensor = is_send && !rendezvous ? tensor.detach().clone() : tensor;
  absl::MutexLock lock(&mutex);
  SP_RETURN_IF_ERROR(ClosedStatus(self));
  Channel& channel = channels[key];
  if (is_send) {
    if (!ClosedStatus(peer).ok()) return PeerClosed(peer);
    ++num_messages[static_cast<size_t>(kind)];
    num_bytes[static_cast<size_t>(kind)] += static_cast<int64_t>(tensor.nbytes());
  }
  operation->index = is_send ? channel.num_sends++ : channel.num_receives++;
  for (const Fault& fault : faults) {
    if (ChannelKey(fault.from, fault.to, fault.kind) == key && fault.message == operation->index) {
      operation->End(fault.status);
      return operation;
    }
  }
  (is_send ? channel.sends : channel.receives).push_back(operation);
  if (is_send && !rendezvous) {
    channel.buffered.push_back(operation->tensor);
    operation->End(absl::OkStatus());
  }
  Match(key, channel);
  if (!operation->ended && !ClosedStatus(peer).ok()) {
    operation->End(PeerClosed(peer));
    channel.receives.pop_back();
  }
  return operation;
}

void LoopbackHub::Shared::Match(const ChannelKey& key, Channel& channel) {
  while (!channel.sends.empty() && !channel.receives.empty()) {
    const OperationPtr send = std::move(channel.sends.front());
    const OperationPtr receive = std::move(channel.receives.front());
    channel.sends.pop_front();
    channel.receives.pop_front();
    at::Tensor source = send->tensor;
    if (!rendezvous) {
      source = std::move(channel.buffered.front());
      channel.buffered.pop_front();
    }
    absl::Status status;
    if (source.sizes() == receive->tensor.sizes() &&
        source.scalar_type() == receive->tensor.scalar_type()) {
      if (source.nbytes() > 0)
        std::memcpy(receive->tensor.data_ptr(), source.const_data_ptr(), source.nbytes());
    } else {
      status = absl::InvalidArgumentError(
          absl::StrCat(DescribeRank(std::get<0>(key), {}), " sent ", DescribeTensor(source),
                       " where ", DescribeRank(std::get<1>(key), {}), " expects ",
                       DescribeMessage(std::get<2>(key), *receive)));
    }
    receive->End(status);
    if (!send->ended) send->End(std::move(status));
  }
}

void LoopbackHub::Shared::CloseLocked(Rank rank, const absl::Status& status) {
  if (!ClosedStatus(rank).ok()) return;
  ClosedStatus(rank) = status;
  for (auto& [key, channel] : channels) {
    const auto& [from, to, kind] = key;
    if (from != rank && to != rank) continue;
    const absl::Status at_peer = PeerClosed(rank);
    for (const OperationPtr& send : channel.sends) {
      if (!send->ended) send->End(from == rank ? status : at_peer);
    }
    for (const OperationPtr& receive : channel.receives)
      receive->End(to == rank ? status : at_peer);
    channel.receives.clear();
    // What was buffered has left its sender and still arrives.
    if (rendezvous) channel.sends.clear();
  }
}

absl::Status LoopbackHub::Shared::Wait(const OperationPtr& operation, bool is_send, Rank self,
                                       Rank peer, ChannelKind kind) {
  absl::MutexLock lock(&mutex);
  if (!mutex.AwaitWithTimeout(absl::Condition(&operation->ended), transfer_timeout)) {
    // As Gloo does: a rank that ran into its limit gives up all its connections.
    const absl::Status status = absl::DeadlineExceededError(
        absl::StrCat(DescribeRank(peer, {}), is_send ? " did not take " : " did not send ",
                     DescribeMessage(kind, *operation), ", within ",
                     absl::ToDoubleSeconds(transfer_timeout), " s"));
    CloseLocked(self, status);
    return status;
  }
  return operation->status;
}

namespace {

class LoopbackTransfer final : public Transfer {
 public:
  LoopbackTransfer(std::shared_ptr<LoopbackHub::Shared> shared, OperationPtr operation,
                   bool is_send, Rank self, Rank peer, ChannelKind kind)
      : shared_(std::move(shared)),
        operation_(std::move(operation)),
        is_send_(is_send),
        self_(self),
        peer_(peer),
        kind_(kind) {}
  absl::Status Wait() override { return shared_->Wait(operation_, is_send_, self_, peer_, kind_); }
  bool Done() override { return shared_->Done(operation_); }

 private:
  const std::shared_ptr<LoopbackHub::Shared> shared_;
  const OperationPtr operation_;
  const bool is_send_;
  const Rank self_, peer_;
  const ChannelKind kind_;
};

class LoopbackTransport final : public Transport {
 public:
  LoopbackTransport(std::shared_ptr<LoopbackHub::Shared> shared, Rank rank)
      : shared_(std::move(shared)), rank_(rank) {}
  ~LoopbackTransport() override {
    shared_->Close(rank_, absl::CancelledError("the transport was closed"));
  }
  Rank rank() const override { return rank_; }
  int32_t size() const override { return shared_->size; }
  absl::StatusOr<std::unique_ptr<Transfer>> Send(Rank to, ChannelKind kind,
                                                 const at::Tensor& tensor) override {
    return Start(/*is_send=*/true, to, kind, tensor);
  }
  absl::StatusOr<std::unique_ptr<Transfer>> Receive(Rank from, ChannelKind kind,
                                                    at::Tensor tensor) override {
    return Start(/*is_send=*/false, from, kind, tensor);
  }
  void Abort(const absl::Status& why) override {
    shared_->Close(rank_,
                   absl::CancelledError(absl::StrCat("transfers were aborted: ", why.message())));
  }
  absl::Status status() const override { return shared_->WhyClosed(rank_); }

 private:
  absl::StatusOr<std::unique_ptr<Transfer>> Start(bool is_send, Rank peer, ChannelKind kind,
                                                  const at::Tensor& tensor) {
    SP_ASSIGN_OR_RETURN(OperationPtr operation, shared_->Start(is_send, rank_, peer, kind, tensor));
    return std::make_unique<LoopbackTransfer>(shared_, std::move(operation), is_send, rank_, peer,
                                              kind);
  }

  const std::shared_ptr<LoopbackHub::Shared> shared_;
  const Rank rank_;
};

}  // namespace

LoopbackHub::LoopbackHub(int32_t size, bool rendezvous, std::vector<Fault> faults,
                         absl::Duration transfer_timeout)
    : shared_(std::make_shared<Shared>(size, rendezvous, std::move(faults), transfer_timeout)) {}

LoopbackHub::~LoopbackHub() = default;

std::unique_ptr<Transport> LoopbackHub::MakeTransport(Rank rank) {
  return std::make_unique<LoopbackTransport>(shared_, rank);
}

int64_t LoopbackHub::num_messages(ChannelKind kind) const {
  absl::MutexLock lock(&shared_->mutex);
  return shared_->num_messages[static_cast<size_t>(kind)];
}

int64_t LoopbackHub::num_bytes(ChannelKind kind) const {
  absl::MutexLock lock(&shared_->mutex);
  return shared_->num_bytes[static_cast<size_t>(kind)];
}

}  // namespace smartpipe
