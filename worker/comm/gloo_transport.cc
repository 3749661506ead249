// Transport over c10d's Gloo backend: its tagged send and receive.
//
// Facts about Gloo that shape this file:
// - The data moves on Gloo's I/O threads. Only Work::wait() tells that a transfer has ended; there
//   is no poll. So Wait() calls it on the caller's thread, and only transfers whose Done() is
//   asked, or that are dropped unfinished, go to a watcher thread.
// - An I/O thread that finds a connection locked spins until it is free. A compute thread that
//   sends wakes the peer, is put aside for it on a busy machine while it holds the lock, and its
//   own I/O thread then burns milliseconds. Therefore a poster thread does all sending and
//   receiving, and each direction has a connection of its own. Measurements:
//   docs/decisions/0005-gloo-threads.md.
// - A message that is longer than the posted buffer ends the receiving process, a shorter one
//   passes unnoticed. Therefore the tag holds the message's number and a fingerprint of shape and
//   type: a mismatch never meets and ends in DEADLINE_EXCEEDED.
// - Sockets live as long as the last Work or backend object; all must go before a peer sees the
//   end.
#include <signal.h>

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
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "services/base/status_macros.h"
#include "worker/comm/channel.h"
#include "worker/comm/gloo_mesh.h"
#include "worker/comm/transport.h"

namespace smartpipe {
namespace {

using WorkPtr = c10::intrusive_ptr<c10d::Work>;

// Gloo takes milliseconds, and zero as "the default".
std::chrono::milliseconds ToMilliseconds(absl::Duration duration) {
  constexpr absl::Duration kLongest = absl::Hours(24 * 365);
  return absl::ToChronoMilliseconds(
      std::clamp(absl::Ceil(duration, absl::Milliseconds(1)), absl::Milliseconds(1), kLongest));
}

// Equal on both sides for the n-th message of a channel if shape and type agree.
// 31 bits: kind 2, message number 12, fingerprint 16, and the direction, which picks the
// connection.
int MessageTag(ChannelKind kind, bool upward, int64_t index, const at::Tensor& tensor) {
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
                          static_cast<uint32_t>(index & 0xfff) << 17 | folded << 1 |
                          static_cast<uint32_t>(upward));
}

// One transfer. Everything but the constants is guarded by the mutex of its group.
struct Operation {
  bool is_send = false;
  Rank peer;
  ChannelKind kind = ChannelKind::kState;
  int64_t index = 0;  // number of the message on its channel, from 0
  at::Tensor tensor;  // reset at the end, as is `work`
  WorkPtr work;       // set when posted
  enum class State : uint8_t {
    kQueued,   // waits for the poster
    kPosted,   // under way
    kClaimed,  // under way, and a thread is in work->wait()
    kEnded,
  } state = State::kQueued;
  bool watched = false;
  absl::Status status;  // valid when ended
};
using OperationPtr = std::shared_ptr<Operation>;
using State = Operation::State;

// The connections of one rank and everything under way on them. Shared by the transport and its
// transfers, which may outlive it.
class GlooGroup {
 public:
  // `backend` is null for a group of one.
  GlooGroup(TransportOptions options, c10::intrusive_ptr<c10d::Backend> backend);
  ~GlooGroup() { Close(); }

  const TransportOptions& options() const { return options_; }
  absl::StatusOr<OperationPtr> Start(bool is_send, Rank peer, ChannelKind kind, at::Tensor tensor)
      ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status Wait(const OperationPtr& operation) ABSL_LOCKS_EXCLUDED(mutex_);
  bool Done(const OperationPtr& operation) ABSL_LOCKS_EXCLUDED(mutex_);
  // The caller loses interest: the watcher keeps the buffer alive until the transfer has ended.
  void Drop(const OperationPtr& operation) ABSL_LOCKS_EXCLUDED(mutex_);
  void Abort(const absl::Status& why) ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status status() const ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    return closed_;
  }
  // Aborts and ends the threads. Idempotent.
  void Close() ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  void Watch(const OperationPtr& operation) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void RunPoster() ABSL_LOCKS_EXCLUDED(mutex_);
  void RunWatcher() ABSL_LOCKS_EXCLUDED(mutex_);
  void Post(const OperationPtr& operation, c10::intrusive_ptr<c10d::Backend> backend)
      ABSL_LOCKS_EXCLUDED(mutex_);
  // Ends everything under way and to come with `why`, and the connections.
  void CloseConnections(const absl::Status& why) ABSL_LOCKS_EXCLUDED(mutex_);
  // Waits on a claimed operation and ends it.
  void Finish(const OperationPtr& operation, WorkPtr work) ABSL_LOCKS_EXCLUDED(mutex_);
  // The caller destroys what is returned after it has released the mutex.
  WorkPtr End(Operation& operation, absl::Status status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status Explain(const Operation& operation, const std::exception& error) const;
  std::string DescribeMessage(const Operation& operation) const;

  const TransportOptions options_;
  mutable absl::Mutex mutex_;
  c10::intrusive_ptr<c10d::Backend> backend_ ABSL_GUARDED_BY(mutex_);  // null when closed
  absl::Status closed_
      ABSL_GUARDED_BY(mutex_);  // why the connections are closed; OK while they are open
  std::set<OperationPtr> under_way_ ABSL_GUARDED_BY(mutex_);  // not ended
  // Messages so far per (is_send, peer, kind).
  std::map<std::array<int32_t, 3>, int64_t> num_messages_ ABSL_GUARDED_BY(mutex_);
  std::deque<OperationPtr> queued_ ABSL_GUARDED_BY(mutex_);
  std::deque<OperationPtr> watched_ ABSL_GUARDED_BY(mutex_);
  std::thread poster_ ABSL_GUARDED_BY(mutex_);
  std::thread watcher_ ABSL_GUARDED_BY(mutex_);  // started when first needed
};

GlooGroup::GlooGroup(TransportOptions options, c10::intrusive_ptr<c10d::Backend> backend)
    : options_(std::move(options)), backend_(std::move(backend)) {
  absl::MutexLock lock(&mutex_);
  if (backend_) poster_ = std::thread([this] { RunPoster(); });
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
  absl::MutexLock lock(&mutex_);
  SP_RETURN_IF_ERROR(closed_);
  operation->index = num_messages_[{is_send, peer.value(), static_cast<int32_t>(kind)}]++;
  under_way_.insert(operation);
  queued_.push_back(operation);
  return operation;
}

void GlooGroup::RunPoster() {
  while (true) {
    OperationPtr operation;
    c10::intrusive_ptr<c10d::Backend> backend;
    {
      absl::MutexLock lock(&mutex_);
      auto ready = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
        return !closed_.ok() || !queued_.empty();
      };
      mutex_.Await(absl::Condition(&ready));
      if (!closed_.ok()) return;
      operation = std::move(queued_.front());
      queued_.pop_front();
      backend = backend_;
    }
    Post(operation, std::move(backend));
  }
}

void GlooGroup::Post(const OperationPtr& operation, c10::intrusive_ptr<c10d::Backend> backend) {
  // The poster alone has this operation, and Abort leaves it to the poster.
  const int peer = operation->peer.value();
  const bool upward = (options_.rank < operation->peer) == operation->is_send;
  const int tag = MessageTag(operation->kind, upward, operation->index, operation->tensor);
  WorkPtr work;
  WorkPtr ended;
  absl::Status status;
  try {
    std::vector<at::Tensor> tensors = {operation->tensor};
    work =
        operation->is_send ? backend->send(tensors, peer, tag) : backend->recv(tensors, peer, tag);
  } catch (const std::exception& error) {
    status = Explain(*operation, error);
  }
  absl::MutexLock lock(&mutex_);
  operation->work = std::move(work);
  operation->state = State::kPosted;
  if (status.ok() && closed_.ok()) return;
  ended = End(*operation, closed_.ok() ? std::move(status) : closed_);
  under_way_.erase(operation);
}

absl::Status GlooGroup::Wait(const OperationPtr& operation) {
  WorkPtr work;
  {
    absl::MutexLock lock(&mutex_);
    auto free = [&operation] {
      return operation->state == State::kPosted || operation->state == State::kEnded;
    };
    mutex_.Await(absl::Condition(&free));
    if (operation->state == State::kEnded) return operation->status;
    operation->state = State::kClaimed;
    work = operation->work;
  }
  Finish(operation, std::move(work));
  absl::MutexLock lock(&mutex_);
  return operation->status;
}

bool GlooGroup::Done(const OperationPtr& operation) {
  absl::MutexLock lock(&mutex_);
  Watch(operation);
  return operation->state == State::kEnded;
}

void GlooGroup::Drop(const OperationPtr& operation) {
  absl::MutexLock lock(&mutex_);
  Watch(operation);
}

void GlooGroup::Watch(const OperationPtr& operation) {
  if (operation->state == State::kClaimed || operation->state == State::kEnded ||
      operation->watched)
    return;
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
        return !closed_.ok() || (!watched_.empty() && watched_.front()->state != State::kQueued);
      };
      mutex_.Await(absl::Condition(&ready));
      if (!closed_.ok()) return;
      operation = std::move(watched_.front());
      watched_.pop_front();
      if (operation->state != State::kPosted) continue;
      operation->state = State::kClaimed;
      work = operation->work;
    }
    Finish(operation, std::move(work));
  }
}

void GlooGroup::Finish(const OperationPtr& operation, WorkPtr work) {
  absl::Status status;
  try {
    // False means aborted, and then `closed_` is set.
    work->wait(ToMilliseconds(options_.transfer_timeout));
  } catch (const std::exception& error) {
    status = Explain(*operation, error);
  }
  // Gloo has given up one connection by now; give up all, so that no peer waits for its own
  // deadline.
  if (absl::IsDeadlineExceeded(status)) CloseConnections(status);
  WorkPtr ended;
  absl::MutexLock lock(&mutex_);
  ended = End(*operation, closed_.ok() ? std::move(status) : closed_);
  under_way_.erase(operation);
}

WorkPtr GlooGroup::End(Operation& operation, absl::Status status) {
  operation.status = std::move(status);
  operation.state = State::kEnded;
  operation.tensor.reset();
  return std::move(operation.work);
}

void GlooGroup::Abort(const absl::Status& why) {
  CloseConnections(absl::CancelledError(absl::StrCat("transfers were aborted: ", why.message())));
}

void GlooGroup::CloseConnections(const absl::Status& why) {
  // Destroyed last to first and without the lock: transfers, then the backend with its sockets.
  c10::intrusive_ptr<c10d::Backend> backend;
  std::vector<WorkPtr> ended;
  absl::MutexLock lock(&mutex_);
  if (!closed_.ok()) return;
  closed_ = why;
  for (const OperationPtr& operation : queued_) {
    End(*operation, closed_);
    under_way_.erase(operation);
  }
  for (auto it = under_way_.begin(); it != under_way_.end();) {
    Operation& operation = **it;
    if (operation.work) operation.work->abort();
    if (operation.state == State::kPosted) {
      ended.push_back(End(operation, closed_));
      it = under_way_.erase(it);
    } else {
      ++it;  // the poster has it, or a thread that waits and is woken now: they end it
    }
  }
  queued_.clear();
  watched_.clear();
  backend = std::move(backend_);
}

void GlooGroup::Close() {
  Abort(absl::CancelledError("the transport was closed"));
  std::thread poster, watcher;
  {
    absl::MutexLock lock(&mutex_);
    poster = std::move(poster_);
    watcher = std::move(watcher_);
  }
  if (poster.joinable()) poster.join();
  if (watcher.joinable()) watcher.join();
}

std::string GlooGroup::DescribeMessage(const Operation& operation) const {
  return absl::StrCat(ChannelKindName(operation.kind), " message ", operation.index, ", ",
                      DescribeTensor(operation.tensor));
}

absl::Status GlooGroup::Explain(const Operation& operation, const std::exception& error) const {
  const std::string text = FirstLine(error);
  const std::string peer = DescribeRank(operation.peer, options_.member_names);
  const std::string message = DescribeMessage(operation);
  const std::string action = absl::StrCat(operation.is_send ? "sending " : "receiving ", message);
  if (absl::StrContains(text, "Timed out waiting")) {
    return absl::DeadlineExceededError(
        absl::StrCat(peer, operation.is_send ? " did not take " : " did not send ", message,
                     ", within ", absl::ToDoubleSeconds(options_.transfer_timeout),
                     " s; it is stopped or overloaded, or expects another shape there"));
  }
  if (absl::StrContains(text, "Application timeout")) {
    return absl::DeadlineExceededError(absl::StrCat("another transfer timed out while ", action));
  }
  if (absl::StrContains(text, "closed by peer") || absl::StrContains(text, "reset by peer") ||
      absl::StrContains(text, "Broken pipe") || absl::StrContains(text, "Socket closed")) {
    return absl::UnavailableError(
        absl::StrCat(peer, " closed the connection (while ", action, ")"));
  }
  return absl::UnavailableError(
      absl::StrCat("the connection to ", peer, " failed while ", action, ": ", text));
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
  absl::Status status() const override { return group_->status(); }

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
  c10::intrusive_ptr<c10d::Backend> backend;
  if (options.size > 1) {
    // Gloo writes to its sockets without MSG_NOSIGNAL: a peer that has just gone would end this
    // process instead of giving an error.
    signal(SIGPIPE, SIG_IGN);
    SP_ASSIGN_OR_RETURN(backend, ConnectGlooMesh(options));
  }
  return std::make_unique<GlooTransport>(std::make_shared<GlooGroup>(options, std::move(backend)));
}

}  // namespace smartpipe
