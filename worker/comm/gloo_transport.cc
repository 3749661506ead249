// Transport over ProcessGroupGloo's tagged send and receive.
//
// Facts about Gloo that shape this file:
// - The data moves on Gloo's own I/O thread. Only Work::wait() tells that a transfer has ended;
// there is no poll. So
//   Wait() calls it on the caller's thread (no detour in the hot path), and only transfers whose
//   Done() is asked, or that are dropped unfinished, go to one watcher thread per group.
// - A message that is longer than the posted buffer ends the receiving process, a shorter one
// passes unnoticed.
//   Therefore the tag holds the message's number and a fingerprint of shape and type: a mismatch
//   never meets and ends in DEADLINE_EXCEEDED.
// - A connection attempt lasts up to five times the timeout that Gloo is given, and cannot be
// interrupted.
// - Sockets live as long as the last Work or group object; both must go before a peer sees the end.
// - Headers of Gloo may be older than the code inside libtorch_cpu: no object of a gloo type is
// made here.
#include <net/if.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <deque>
#include <exception>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "services/base/status_macros.h"
#include "torch/csrc/distributed/c10d/ProcessGroupGloo.hpp"
#include "worker/comm/c10d_store.h"
#include "worker/comm/channel.h"
#include "worker/comm/transport.h"

namespace smartpipe {
namespace {

using WorkPtr = c10::intrusive_ptr<c10d::Work>;

// Limit of what cannot be interrupted: connecting ranks that are all known to be there. Usually
// takes 20 ms to 200 ms.
constexpr absl::Duration kMeshTimeoutMax = absl::Seconds(8);

// Gloo takes milliseconds, and zero as "the default".
std::chrono::milliseconds ToMilliseconds(absl::Duration duration) {
  constexpr absl::Duration kLongest = absl::Hours(24 * 365);
  return absl::ToChronoMilliseconds(
      std::clamp(absl::Ceil(duration, absl::Milliseconds(1)), absl::Milliseconds(1), kLongest));
}

// The first line of what c10d or Gloo says; its messages carry source positions and back traces
// after it.
std::string FirstLine(const std::exception& error) {
  const absl::string_view text = error.what();
  return std::string(text.substr(0, text.find('\n')));
}

// Equal on both sides of a channel for the n-th message if shape and type agree. 31 bits: 2 kind,
// 13 number, 16 hash.
int MessageTag(ChannelKind kind, int64_t index, const at::Tensor& tensor) {
  uint64_t hash = 0xcbf29ce484222325;  // FNV-1a
  auto mix = [&hash](uint64_t value) {
    for (int byte = 0; byte < 8; ++byte, value >>= 8)
      hash = (hash ^ (value & 0xff)) * 0x100000001b3;
  };
  mix(static_cast<uint64_t>(tensor.scalar_type()));
  for (const int64_t extent : tensor.sizes()) mix(static_cast<uint64_t>(extent));
  const uint32_t folded =
      static_cast<uint32_t>((hash >> 48 ^ hash >> 32 ^ hash >> 16 ^ hash) & 0xffff);
  return static_cast<int>(static_cast<uint32_t>(kind) << 29 |
                          static_cast<uint32_t>(index & 0x1fff) << 16 | folded);
}

// Gloo waits for addresses with its own timeout, a fifth of what a connection may take; here both
// take the same.
class MeshStore final : public C10dStore {
 public:
  using C10dStore::C10dStore;
  using C10dStore::wait;
  void wait(const std::vector<std::string>& keys,
            const std::chrono::milliseconds& timeout) override {
    C10dStore::wait(keys, std::max(timeout, getTimeout()));
  }
};

// One transfer. Everything but the constants is guarded by the mutex of its group.
struct Operation {
  bool is_send = false;
  Rank peer;
  ChannelKind kind = ChannelKind::kState;
  int64_t index = 0;  // number of the message on its channel, from 0
  at::Tensor tensor;  // for messages; reset at the end
  WorkPtr work;       // reset at the end
  enum class State : uint8_t {
    kStarted,
    kClaimed,
    kEnded
  } state = State::kStarted;  // claimed: a thread is in wait()
  bool watched = false;
  absl::Status status;  // valid when ended
};
using OperationPtr = std::shared_ptr<Operation>;

// The connections of one rank and everything under way on them. Shared by the transport and its
// transfers, which may outlive it.
class GlooGroup {
 public:
  explicit GlooGroup(TransportOptions options) : options_(std::move(options)) {}
  ~GlooGroup() { Close(); }

  const TransportOptions& options() const { return options_; }
  absl::Status Connect() ABSL_LOCKS_EXCLUDED(mutex_);
  absl::StatusOr<OperationPtr> Start(bool is_send, Rank peer, ChannelKind kind, at::Tensor tensor)
      ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status Wait(const OperationPtr& operation) ABSL_LOCKS_EXCLUDED(mutex_);
  bool Done(const OperationPtr& operation) ABSL_LOCKS_EXCLUDED(mutex_);
  // The caller loses interest: the watcher keeps the buffer alive until the transfer has ended.
  void Drop(const OperationPtr& operation) ABSL_LOCKS_EXCLUDED(mutex_);
  void Abort(const absl::Status& why) ABSL_LOCKS_EXCLUDED(mutex_);
  void Close() ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  absl::Status Gather(absl::Time deadline);
  void Watch(const OperationPtr& operation) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void RunWatcher() ABSL_LOCKS_EXCLUDED(mutex_);
  // Waits on a claimed operation and ends it.
  void Finish(const OperationPtr& operation, WorkPtr work) ABSL_LOCKS_EXCLUDED(mutex_);
  WorkPtr End(Operation& operation, absl::Status status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status Explain(const Operation& operation, const std::exception& error)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::string Describe(const Operation& operation) const;
  std::string Peer(Rank rank) const { return DescribeRank(rank, options_.member_names); }

  const TransportOptions options_;
  absl::Mutex mutex_;
  c10::intrusive_ptr<c10d::Backend> backend_
      ABSL_GUARDED_BY(mutex_);                    // null for a group of one, or after Abort
  absl::Status aborted_ ABSL_GUARDED_BY(mutex_);  // CANCELLED once aborted
  absl::Status timed_out_
      ABSL_GUARDED_BY(mutex_);  // the transfer whose deadline made Gloo close all connections
  std::set<OperationPtr> under_way_ ABSL_GUARDED_BY(mutex_);
  // Messages so far per (is_send, peer, kind).
  std::map<std::array<int32_t, 3>, int64_t> num_messages_ ABSL_GUARDED_BY(mutex_);
  std::deque<OperationPtr> watched_ ABSL_GUARDED_BY(mutex_);
  std::thread watcher_ ABSL_GUARDED_BY(mutex_);
};

// Waits until every rank is here, so that a missing one can be named.
absl::Status GlooGroup::Gather(absl::Time deadline) {
  auto key = [](int32_t rank) { return absl::StrCat("transport/rank/", rank); };
  SP_RETURN_IF_ERROR(options_.store->Set(key(options_.rank.value()), "here"));
  std::vector<std::string> keys;
  for (int32_t rank = 0; rank < options_.size; ++rank) keys.push_back(key(rank));
  const absl::Status status = options_.store->Wait(keys, deadline - absl::Now());
  if (!absl::IsDeadlineExceeded(status)) return status;
  std::vector<std::string> missing;
  for (int32_t rank = 0; rank < options_.size; ++rank) {
    SP_ASSIGN_OR_RETURN(const bool here, options_.store->Check({key(rank)}));
    if (!here) missing.push_back(Peer(Rank(rank)));
  }
  return absl::DeadlineExceededError(absl::StrCat(
      "waited ", absl::ToDoubleSeconds(options_.connect_timeout), " s for ",
      absl::StrJoin(missing, ", "), "; ", options_.size - static_cast<int32_t>(missing.size()),
      " of ", options_.size, " workers are ready to connect"));
}

absl::Status GlooGroup::Connect() {
  if (options_.size == 1) return absl::OkStatus();
  const absl::Time deadline = absl::Now() + options_.connect_timeout;
  const std::string& address = options_.bind_address;
  auto gloo_options = c10d::ProcessGroupGloo::Options::create();
  gloo_options->threads = 1;  // they serve collectives only, of which there are none
  try {
    gloo_options->devices = {
        if_nametoindex(address.c_str()) != 0
            ? c10d::ProcessGroupGloo::createDeviceForInterface(address, /*lazyInit=*/false)
            : c10d::ProcessGroupGloo::createDeviceForHostname(address, /*lazyInit=*/false)};
  } catch (const std::exception& error) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", address, "\" is neither an address nor a network interface ",
                     "of this machine: ", FirstLine(error)));
  }
  SP_RETURN_IF_ERROR(
      Gather(deadline));  // after the last step that fails for reasons of this machine alone
  const absl::Duration mesh_timeout = std::min(deadline - absl::Now(), kMeshTimeoutMax);
  gloo_options->timeout = ToMilliseconds(mesh_timeout / 5);
  auto store = c10::make_intrusive<MeshStore>(options_.store, ToMilliseconds(mesh_timeout));
  try {
    auto backend = c10::make_intrusive<c10d::ProcessGroupGloo>(
        store, options_.rank.value(), options_.size, std::move(gloo_options));
    absl::MutexLock lock(&mutex_);
    backend_ = std::move(backend);
    return absl::OkStatus();
  } catch (const std::exception& error) {
    if (!store->status().ok()) return Annotate(store->status(), "exchanging addresses");
    return absl::UnavailableError(absl::StrCat(
        "all ", options_.size, " workers are there, but they cannot connect: ", FirstLine(error),
        ". One may have died just now, or ", address, " is not reachable from all of them"));
  }
}

absl::StatusOr<OperationPtr> GlooGroup::Start(bool is_send, Rank peer, ChannelKind kind,
                                              at::Tensor tensor) {
  SP_RETURN_IF_ERROR(CheckChannel(options_.rank, options_.size, peer, kind));
  SP_RETURN_IF_ERROR(is_send ? CheckSendTensor(tensor) : CheckReceiveTensor(tensor));
  auto operation = std::make_shared<Operation>();
  operation->is_send = is_send;
  operation->peer = peer;
  operation->kind = kind;
  operation->tensor = std::move(tensor);
  c10::intrusive_ptr<c10d::Backend> backend;
  {
    absl::MutexLock lock(&mutex_);
    SP_RETURN_IF_ERROR(aborted_);
    backend = backend_;
    operation->index = num_messages_[{is_send, peer.value(), static_cast<int32_t>(kind)}]++;
  }
  const int tag = MessageTag(kind, operation->index, operation->tensor);
  std::vector<at::Tensor> tensors = {operation->tensor};
  WorkPtr work;
  try {
    work = is_send ? backend->send(tensors, peer.value(), tag)
                   : backend->recv(tensors, peer.value(), tag);
  } catch (const std::exception& error) {
    absl::MutexLock lock(&mutex_);
    return aborted_.ok() ? Explain(*operation, error) : aborted_;
  }
  absl::MutexLock lock(&mutex_);
  SP_RETURN_IF_ERROR(aborted_);
  operation->work = std::move(work);
  under_way_.insert(operation);
  return operation;
}

absl::Status GlooGroup::Wait(const OperationPtr& operation) {
  WorkPtr work;
  {
    absl::MutexLock lock(&mutex_);
    if (operation->state == Operation::State::kClaimed) {
      auto ended = [&operation] { return operation->state == Operation::State::kEnded; };
      mutex_.Await(absl::Condition(&ended));
    }
    if (operation->state == Operation::State::kEnded) return operation->status;
    operation->state = Operation::State::kClaimed;
    work = operation->work;
  }
  Finish(operation, std::move(work));
  absl::MutexLock lock(&mutex_);
  return operation->status;
}

bool GlooGroup::Done(const OperationPtr& operation) {
  absl::MutexLock lock(&mutex_);
  Watch(operation);
  return operation->state == Operation::State::kEnded;
}

void GlooGroup::Drop(const OperationPtr& operation) {
  absl::MutexLock lock(&mutex_);
  Watch(operation);
}

void GlooGroup::Watch(const OperationPtr& operation) {
  if (operation->state != Operation::State::kStarted || operation->watched) return;
  operation->watched = true;
  watched_.push_back(operation);
  if (!watcher_.joinable()) watcher_ = std::thread([this] { RunWatcher(); });
}

void GlooGroup::RunWatcher() {
  while (true) {
    OperationPtr operation;
    WorkPtr work;
    {
      absl::MutexLock lock(&mutex_);
      auto ready = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
        return !aborted_.ok() || !watched_.empty();
      };
      mutex_.Await(absl::Condition(&ready));
      if (!aborted_.ok()) return;
      operation = std::move(watched_.front());
      watched_.pop_front();
      if (operation->state != Operation::State::kStarted) continue;
      operation->state = Operation::State::kClaimed;
      work = operation->work;
    }
    Finish(operation, std::move(work));
  }
}

void GlooGroup::Finish(const OperationPtr& operation, WorkPtr work) {
  absl::Status status;
  try {
    // False means aborted, and then `aborted_` is set.
    work->wait(ToMilliseconds(options_.transfer_timeout));
  } catch (const std::exception& error) {
    absl::MutexLock lock(&mutex_);
    status = Explain(*operation, error);
  }
  WorkPtr ended;
  absl::MutexLock lock(&mutex_);
  ended = End(*operation, aborted_.ok() ? std::move(status) : aborted_);
  under_way_.erase(operation);
}

WorkPtr GlooGroup::End(Operation& operation, absl::Status status) {
  operation.status = std::move(status);
  operation.state = Operation::State::kEnded;
  operation.tensor.reset();
  return std::move(operation.work);
}

void GlooGroup::Abort(const absl::Status& why) {
  // Destroyed last to first and without the lock: transfers, then the group with its sockets.
  c10::intrusive_ptr<c10d::Backend> backend;
  std::vector<WorkPtr> ended;
  absl::MutexLock lock(&mutex_);
  if (!aborted_.ok()) return;
  aborted_ = absl::CancelledError(absl::StrCat("transfers were aborted: ", why.message()));
  for (auto it = under_way_.begin(); it != under_way_.end();) {
    Operation& operation = **it;
    operation.work->abort();
    if (operation.state == Operation::State::kStarted) {
      ended.push_back(End(operation, aborted_));
      it = under_way_.erase(it);
    } else {
      ++it;  // its thread is woken now and ends it
    }
  }
  watched_.clear();
  backend = std::move(backend_);
}

void GlooGroup::Close() {
  Abort(absl::CancelledError("the transport was closed"));
  std::thread watcher;
  {
    absl::MutexLock lock(&mutex_);
    watcher = std::move(watcher_);
  }
  if (watcher.joinable()) watcher.join();
}

std::string GlooGroup::Describe(const Operation& operation) const {
  return absl::StrCat(operation.is_send ? "sending " : "receiving ",
                      ChannelKindName(operation.kind), " message ", operation.index, ", ",
                      DescribeTensor(operation.tensor));
}

absl::Status GlooGroup::Explain(const Operation& operation, const std::exception& error) {
  const std::string text = FirstLine(error);
  const std::string peer = Peer(operation.peer);
  if (absl::StrContains(text, "Timed out waiting")) {
    const absl::Status status = absl::DeadlineExceededError(
        absl::StrCat(peer, operation.is_send ? " did not take " : " did not send ",
                     ChannelKindName(operation.kind), " message ", operation.index, ", ",
                     DescribeTensor(operation.tensor), ", within ",
                     absl::ToDoubleSeconds(options_.transfer_timeout),
                     " s; it is stopped or overloaded, or expects another shape there"));
    if (timed_out_.ok()) timed_out_ = status;
    return status;
  }
  if (absl::StrContains(text, "Application timeout")) {
    return Annotate(
        timed_out_.ok() ? absl::DeadlineExceededError("another transfer timed out") : timed_out_,
        absl::StrCat("connections were given up while ", Describe(operation)));
  }
  if (absl::StrContains(text, "closed by peer") || absl::StrContains(text, "reset by peer") ||
      absl::StrContains(text, "Broken pipe") || absl::StrContains(text, "Socket closed")) {
    return absl::UnavailableError(
        absl::StrCat(peer, " closed the connection (while ", Describe(operation), ")"));
  }
  return absl::UnavailableError(
      absl::StrCat("the connection to ", peer, " failed while ", Describe(operation), ": ", text));
}

class GlooTransfer final : public Transfer {
 public:
  GlooTransfer(std::shared_ptr<GlooGroup> group, OperationPtr operation)
      : group_(std::move(group)), operation_(std::move(operation)) {}
  ~GlooTransfer() override { group_->Drop(operation_); }
  absl::Status Wait() override { return group_->Wait(operation_); }
  bool Done() override { return group_->Done(operation_); }

 private:
  const std::shared_ptr<GlooGroup> group_;
  const OperationPtr operation_;
};

class GlooTransport final : public Transport {
 public:
  explicit GlooTransport(std::shared_ptr<GlooGroup> group) : group_(std::move(group)) {}
  ~GlooTransport() override { group_->Close(); }
  Rank rank() const override { return group_->options().rank; }
  int32_t size() const override { return group_->options().size; }
  absl::StatusOr<std::unique_ptr<Transfer>> Send(Rank to, ChannelKind kind,
                                                 const at::Tensor& tensor) override {
    return Start(/*is_send=*/true, to, kind, tensor);
  }
  absl::StatusOr<std::unique_ptr<Transfer>> Receive(Rank from, ChannelKind kind,
                                                    at::Tensor tensor) override {
    return Start(/*is_send=*/false, from, kind, std::move(tensor));
  }
  void Abort(const absl::Status& why) override { group_->Abort(why); }

 private:
  absl::StatusOr<std::unique_ptr<Transfer>> Start(bool is_send, Rank peer, ChannelKind kind,
                                                  at::Tensor tensor) {
    SP_ASSIGN_OR_RETURN(OperationPtr operation,
                        group_->Start(is_send, peer, kind, std::move(tensor)));
    return std::make_unique<GlooTransfer>(group_, std::move(operation));
  }

  const std::shared_ptr<GlooGroup> group_;
};

absl::Status CheckOptions(const TransportOptions& options) {
  if (options.size < 1 || options.rank.value() < 0 || options.rank.value() >= options.size) {
    return absl::InvalidArgumentError(
        absl::StrCat("rank ", options.rank.value(), " is not in a group of ", options.size));
  }
  if (options.device != "cpu") {
    return absl::InvalidArgumentError(
        absl::StrCat("the gloo transport moves CPU tensors only, not \"", options.device, "\""));
  }
  if (options.size > 1 && options.store == nullptr) {
    return absl::InvalidArgumentError("a group of more than one needs a rendezvous store");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Transport>> MakeGlooTransport(const TransportOptions& options) {
  SP_RETURN_IF_ERROR(CheckOptions(options));
  auto group = std::make_shared<GlooGroup>(options);
  SP_RETURN_IF_ERROR(group->Connect());
  return std::make_unique<GlooTransport>(std::move(group));
}

}  // namespace smartpipe
