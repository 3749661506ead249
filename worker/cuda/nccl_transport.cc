// Facts about NCCL that shape this file:
// - Operations of one communicator run one after the other. A receive that is posted ahead would
//   hold up a send behind it, so each direction and kind between two ranks is a channel with a
//   communicator and a stream of its own.
// - Connecting waits for the peer: in ncclCommInitRankConfig, and again in the first operation. A
//   thread of the channel does both, so that two ranks that first use different channels do not
//   wait for each other. What is started meanwhile queues up.
// - A blocked call cannot be ended. Communicators are non-blocking: calls return ncclInProgress and
//   are asked about, and may be aborted at any moment.
// - A peer that has gone is not noticed between GPUs of one machine, and there are no time-outs: a
//   monitor thread watches the oldest transfers, NCCL's asynchronous errors, and keys of the
//   rendezvous store by which ranks say that they close.
// - After a fault communicators are aborted, never destroyed. Abort ends kernels that wait, whose
//   tensors then hold anything: Transport::status() tells.
#include "worker/cuda/nccl_transport.h"

#include <cuda_runtime_api.h>
#include <nccl.h>

#include <algorithm>
#include <cstring>
#include <deque>
#include <exception>
#include <map>
#include <optional>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "ATen/ops/empty.h"
#include "absl/base/thread_annotations.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "c10/core/DeviceGuard.h"
#include "c10/core/Event.h"
#include "c10/cuda/CUDAStream.h"
#include "services/base/status_macros.h"
#include "worker/comm/channel.h"

namespace smartpipe {
namespace {

constexpr absl::Duration kMonitorPeriod = absl::Milliseconds(100);
// The store is asked less often: it is the service's.
constexpr absl::Duration kClosedPeersPeriod = absl::Milliseconds(500);
// Of one wait for a key while a channel connects, between looks at whether it is still wanted.
constexpr absl::Duration kStorePeriod = absl::Milliseconds(200);
constexpr absl::Duration kPollPeriod = absl::Milliseconds(1);
// For sends that are under way when a transport without a fault is closed.
constexpr absl::Duration kFlushPatience = absl::Seconds(5);

absl::Status NcclStatus(ncclResult_t result, absl::string_view what) {
  if (result == ncclSuccess || result == ncclInProgress) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat(what, ": NCCL: ", ncclGetErrorString(result)));
}

absl::Status CudaStatus(cudaError_t result, absl::string_view what) {
  if (result == cudaSuccess) return absl::OkStatus();
  return absl::InternalError(absl::StrCat(what, ": CUDA: ", cudaGetErrorString(result)));
}

struct Operation {
  Operation(at::Tensor tensor, int64_t index) : tensor(std::move(tensor)), index(index) {}
  at::Tensor tensor;  // reset at the end
  const int64_t index;
  absl::Time since = absl::InfiniteFuture();  // posted
  c10::Event ready{c10::kCUDA};  // what the compute stream did before: the tensor may be used then
  c10::Event done{c10::kCUDA};   // recorded when posted
  enum class State : uint8_t { kQueued, kPosted, kEnded } state = State::kQueued;
  absl::Status status;  // valid when ended
};
using OperationPtr = std::shared_ptr<Operation>;
using State = Operation::State;

// Of a posted one. False after an error of the GPU, too, which Monitor finds.
bool HasArrived(const Operation& operation) {
  try {
    return operation.done.query();
  } catch (const std::exception&) {
    return false;
  }
}

// One direction of one kind between this rank and a peer.
struct Channel {
  Channel(bool is_send, Rank peer, ChannelKind kind) : is_send(is_send), peer(peer), kind(kind) {}
  const bool is_send;
  const Rank peer;
  const ChannelKind kind;
  // Guarded by the group's mutex.
  bool connected = false;
  absl::Status closed;
  int64_t num_messages = 0;
  std::deque<OperationPtr> queued;     // until connected
  std::deque<OperationPtr> under_way;  // posted, oldest first
  std::thread connector;
  // Guarded by `mutex`: held for a moment at a time, as no call blocks.
  absl::Mutex mutex;
  ncclComm_t communicator ABSL_GUARDED_BY(mutex) = nullptr;
  bool aborted ABSL_GUARDED_BY(mutex) = false;
  // Set by the connector before `communicator`.
  cudaStream_t stream = nullptr;
  at::Tensor first_message;
};
using ChannelPtr = std::shared_ptr<Channel>;

// All channels of a rank. Shared by the transport and its transfers, which may outlive it.
class NcclGroup {
 public:
  NcclGroup(const TransportOptions& options, c10::Device device)
      : options_(options), device_(device), monitor_([this] { Monitor(); }) {}
  ~NcclGroup() { Close(); }

  absl::StatusOr<std::pair<ChannelPtr, OperationPtr>> Start(bool is_send, Rank peer,
                                                            ChannelKind kind, at::Tensor tensor)
      ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status Wait(const ChannelPtr& channel, const OperationPtr& operation)
      ABSL_LOCKS_EXCLUDED(mutex_);
  bool Done(const ChannelPtr& channel, const OperationPtr& operation) ABSL_LOCKS_EXCLUDED(mutex_);
  void Abort(const absl::Status& why) {
    CloseAll(absl::CancelledError(absl::StrCat("transfers were aborted: ", why.message())));
  }
  absl::Status status() ABSL_LOCKS_EXCLUDED(mutex_);
  // Aborts and ends the threads. Idempotent.
  void Close() ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  void Connect(const ChannelPtr& channel);
  absl::Status Rendezvous(Channel& channel, ncclUniqueId& id);
  absl::Status MakeCommunicator(Channel& channel, const ncclUniqueId& id);
  absl::Status WarmUp(Channel& channel);
  // Until the communicator has taken what it was given.
  absl::Status Settle(Channel& channel, absl::Time deadline);
  absl::Status Transfer(Channel& channel, void* data, size_t num_bytes);
  absl::Status Post(Channel& channel, Operation& operation);
  void Monitor() ABSL_LOCKS_EXCLUDED(mutex_);
  void Look(const ChannelPtr& channel) ABSL_LOCKS_EXCLUDED(mutex_);
  void LookForClosedPeers() ABSL_LOCKS_EXCLUDED(mutex_);
  void CloseAll(const absl::Status& why) ABSL_LOCKS_EXCLUDED(mutex_);
  void CloseChannel(const ChannelPtr& channel, const absl::Status& why) ABSL_LOCKS_EXCLUDED(mutex_);
  void Flush() ABSL_LOCKS_EXCLUDED(mutex_);
  static void End(Operation& operation, const absl::Status& status) {
    operation.status = status;
    operation.state = State::kEnded;
    operation.tensor.reset();
  }
  std::vector<ChannelPtr> Channels() ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status WhyClosed(Channel& channel) ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    return channel.closed;
  }
  // Of the calling thread.
  c10::Stream ComputeStream() const {
    return c10::cuda::getCurrentCUDAStream(device_.index()).unwrap();
  }
  std::string Name(Rank rank) const { return DescribeRank(rank, options_.member_names); }
  std::string Describe(const Channel& channel, const Operation& operation) const {
    return absl::StrCat(
        ChannelKindName(channel.kind), " message ", operation.index,
        operation.tensor.defined() ? absl::StrCat(", ", DescribeTensor(operation.tensor)) : "");
  }
  absl::Status Late(const Channel& channel, const Operation& operation) const {
    return absl::DeadlineExceededError(absl::StrCat(
        Name(channel.peer), channel.is_send ? " did not take " : " did not send ",
        Describe(channel, operation), ", within ", absl::ToDoubleSeconds(options_.transfer_timeout),
        " s; it is stopped or overloaded, or expects another shape there"));
  }
  absl::Status Lost(const Channel& channel, const absl::Status& why) const {
    return absl::UnavailableError(
        absl::StrCat("the connection to ", Name(channel.peer), " failed while ",
                     channel.is_send ? "sending" : "receiving", ": ", why.message()));
  }
  // The n-th rank that closes says so here.
  static std::string ClosedKey(int64_t n) { return absl::StrCat("transport/closed/", n); }

  const TransportOptions options_;
  const c10::Device device_;
  absl::Mutex mutex_;
  absl::Status closed_ ABSL_GUARDED_BY(mutex_);   // why all is closed; OK while it is open
  absl::Status lost_ ABSL_GUARDED_BY(mutex_);     // why the first transfer was ended
  bool is_over_ ABSL_GUARDED_BY(mutex_) = false;  // the monitor is to end
  std::map<std::tuple<bool, Rank, ChannelKind>, ChannelPtr> channels_ ABSL_GUARDED_BY(mutex_);
  std::map<Rank, absl::Status> closed_peers_ ABSL_GUARDED_BY(mutex_);
  int64_t num_closed_seen_ = 0;  // of the monitor
  std::thread monitor_;          // last: it uses all others
};

std::vector<ChannelPtr> NcclGroup::Channels() {
  absl::MutexLock lock(&mutex_);
  std::vector<ChannelPtr> channels;
  for (const auto& [key, channel] : channels_) channels.push_back(channel);
  return channels;
}

absl::Status NcclGroup::status() {
  absl::MutexLock lock(&mutex_);
  return closed_.ok() ? lost_ : closed_;
}

absl::StatusOr<std::pair<ChannelPtr, OperationPtr>> NcclGroup::Start(bool is_send, Rank peer,
                                                                     ChannelKind kind,
                                                                     at::Tensor tensor) {
  SP_RETURN_IF_ERROR(CheckChannel(options_.rank, options_.size, peer, kind));
  SP_RETURN_IF_ERROR(CheckDenseTensor(tensor));
  if (tensor.device() != device_) {
    return absl::InvalidArgumentError(absl::StrCat(DescribeTensor(tensor), " is not on ",
                                                   options_.device, ", but on ",
                                                   tensor.device().str()));
  }
  if (!is_send && tensor.storage_offset() != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("receiving into ", DescribeTensor(tensor),
                     " which does not own its storage; use a fresh tensor"));
  }
  ChannelPtr channel;
  OperationPtr operation;
  bool post = false;
  {
    absl::MutexLock lock(&mutex_);
    SP_RETURN_IF_ERROR(closed_);
    const auto lost = closed_peers_.find(peer);
    if (lost != closed_peers_.end()) return lost->second;
    ChannelPtr& entry = channels_[{is_send, peer, kind}];
    if (entry == nullptr) {
      entry = std::make_shared<Channel>(is_send, peer, kind);
      entry->connector = std::thread([this, channel = entry] { Connect(channel); });
    }
    channel = entry;
    operation = std::make_shared<Operation>(std::move(tensor), channel->num_messages++);
    operation->ready.record(ComputeStream());
    post = channel->connected;
    if (!post) channel->queued.push_back(operation);
  }
  if (!post) return std::make_pair(std::move(channel), std::move(operation));
  if (const absl::Status status = Post(*channel, *operation); !status.ok()) {
    CloseChannel(channel, Lost(*channel, status));
    return WhyClosed(*channel);
  }
  absl::MutexLock lock(&mutex_);
  operation->state = State::kPosted;
  operation->since = absl::Now();
  if (channel->closed.ok()) {
    channel->under_way.push_back(operation);
  } else {
    End(*operation, channel->closed);
  }
  return std::make_pair(std::move(channel), std::move(operation));
}

// On the channel's own thread.
void NcclGroup::Connect(const ChannelPtr& channel) {
  absl::Status status;
  try {
    const c10::DeviceGuard guard(device_);
    ncclUniqueId id;
    status = Rendezvous(*channel, id);
    if (status.ok()) status = MakeCommunicator(*channel, id);
    if (status.ok()) status = WarmUp(*channel);
    while (status.ok()) {
      OperationPtr next;
      {
        absl::MutexLock lock(&mutex_);
        if (!channel->closed.ok()) return;
        if (channel->queued.empty()) {
          channel->connected = true;
          return;
        }
        next = channel->queued.front();
      }
      status = Post(*channel, *next);
      if (!status.ok()) break;
      absl::MutexLock lock(&mutex_);
      if (!channel->closed.ok()) return;  // and with it all that was queued
      channel->queued.pop_front();
      next->state = State::kPosted;
      next->since = absl::Now();
      channel->under_way.push_back(std::move(next));
    }
  } catch (const std::exception& error) {
    status = absl::InternalError(FirstLine(error));
  }
  if (absl::IsDeadlineExceeded(status)) {
    OperationPtr oldest;
    {
      absl::MutexLock lock(&mutex_);
      if (!channel->queued.empty()) oldest = channel->queued.front();
    }
    // As when it is late on a channel that stands.
    if (oldest != nullptr) return CloseAll(Late(*channel, *oldest));
  }
  CloseChannel(channel, Lost(*channel, status));
}

// The receiver says that it is there before the sender makes an id: an id that nobody uses keeps a
// thread of NCCL's alive.
absl::Status NcclGroup::Rendezvous(Channel& channel, ncclUniqueId& id) {
  const Rank from = channel.is_send ? options_.rank : channel.peer;
  const Rank to = channel.is_send ? channel.peer : options_.rank;
  const std::string prefix = absl::StrCat("transport/nccl/", from.value(), "/", to.value(), "/",
                                          static_cast<int>(channel.kind), "/");
  KeyValueStore& store = *options_.store;
  if (!channel.is_send) SP_RETURN_IF_ERROR(store.Set(prefix + "waits", "1"));
  const absl::Time deadline = absl::Now() + options_.transfer_timeout;
  const std::string awaited = prefix + (channel.is_send ? "waits" : "id");
  while (true) {
    SP_RETURN_IF_ERROR(WhyClosed(channel));
    const absl::StatusOr<std::string> value = store.Get(awaited, kStorePeriod);
    if (value.ok()) {
      if (channel.is_send) break;
      if (value->size() != sizeof(id.internal))
        return absl::DataLossError("the rendezvous store holds no NCCL id where one is expected");
      std::memcpy(id.internal, value->data(), sizeof(id.internal));
      return absl::OkStatus();
    }
    if (!absl::IsDeadlineExceeded(value.status())) return value.status();
    if (absl::Now() > deadline) {
      return absl::DeadlineExceededError(
          absl::StrCat(Name(channel.peer), " did not connect within ",
                       absl::ToDoubleSeconds(options_.transfer_timeout), " s"));
    }
  }
  SP_RETURN_IF_ERROR(NcclStatus(ncclGetUniqueId(&id), "making an id"));
  return store.Set(prefix + "id", std::string(id.internal, sizeof(id.internal)));
}

absl::Status NcclGroup::MakeCommunicator(Channel& channel, const ncclUniqueId& id) {
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  {
    absl::MutexLock lock(&channel.mutex);
    if (channel.aborted) return absl::CancelledError("aborted");
    SP_RETURN_IF_ERROR(CudaStatus(cudaStreamCreateWithFlags(&channel.stream, cudaStreamNonBlocking),
                                  "making a stream"));
    SP_RETURN_IF_ERROR(NcclStatus(ncclCommInitRankConfig(&channel.communicator, /*nranks=*/2, id,
                                                         channel.is_send ? 0 : 1, &config),
                                  "connecting"));
  }
  return Settle(channel, absl::Now() + options_.transfer_timeout);
}

// The first operation sets up the way between the two GPUs, which waits for the peer.
absl::Status NcclGroup::WarmUp(Channel& channel) {
  // Of Torch's memory: cudaMalloc and cudaFree would wait for all that runs on the GPU.
  channel.first_message = at::empty({1}, at::TensorOptions(at::kByte).device(device_));
  return Transfer(channel, channel.first_message.data_ptr(), 1);
}

absl::Status NcclGroup::Settle(Channel& channel, absl::Time deadline) {
  for (int round = 0;; ++round) {
    ncclResult_t state = ncclSuccess;
    {
      absl::MutexLock lock(&channel.mutex);
      if (channel.aborted) return absl::CancelledError("aborted");
      SP_RETURN_IF_ERROR(NcclStatus(ncclCommGetAsyncError(channel.communicator, &state), "asking"));
      SP_RETURN_IF_ERROR(NcclStatus(state, ncclGetLastError(channel.communicator)));
    }
    if (state == ncclSuccess) return absl::OkStatus();
    SP_RETURN_IF_ERROR(WhyClosed(channel));
    if (absl::Now() > deadline) return absl::DeadlineExceededError("the peer does not answer");
    // A transfer is taken in some microseconds, connecting takes longer.
    if (round < 1000) {
      std::this_thread::yield();
    } else {
      absl::SleepFor(kPollPeriod);
    }
  }
}

absl::Status NcclGroup::Transfer(Channel& channel, void* data, size_t num_bytes) {
  {
    absl::MutexLock lock(&channel.mutex);
    if (channel.aborted) return absl::CancelledError("aborted");
    constexpr int kSenderRank = 0, kReceiverRank = 1;
    SP_RETURN_IF_ERROR(NcclStatus(channel.is_send
                                      ? ncclSend(data, num_bytes, ncclInt8, kReceiverRank,
                                                 channel.communicator, channel.stream)
                                      : ncclRecv(data, num_bytes, ncclInt8, kSenderRank,
                                                 channel.communicator, channel.stream),
                                  "starting"));
  }
  return Settle(channel, absl::Now() + options_.transfer_timeout);
}

// One thread at a time: the connector, and the compute thread when that has ended.
absl::Status NcclGroup::Post(Channel& channel, Operation& operation) {
  const c10::Stream stream =
      c10::cuda::getStreamFromExternal(channel.stream, device_.index()).unwrap();
  operation.ready.block(stream);
  at::Tensor tensor;
  {
    absl::MutexLock lock(&mutex_);  // an abort may reset it now
    tensor = operation.tensor;
  }
  if (tensor.defined() && tensor.nbytes() > 0)
    SP_RETURN_IF_ERROR(Transfer(channel, tensor.data_ptr(), tensor.nbytes()));
  operation.done.record(stream);
  return absl::OkStatus();
}

absl::Status NcclGroup::Wait(const ChannelPtr& channel, const OperationPtr& operation) {
  absl::MutexLock lock(&mutex_);
  auto posted = [&operation] { return operation->state != State::kQueued; };
  mutex_.Await(absl::Condition(&posted));
  if (operation->state == State::kEnded) return operation->status;
  if (!channel->closed.ok()) return channel->closed;
  operation->done.block(ComputeStream());
  // Whoever gets its memory next uses it on that stream, behind the transfer.
  operation->tensor.reset();
  return absl::OkStatus();
}

bool NcclGroup::Done(const ChannelPtr& channel, const OperationPtr& operation) {
  absl::MutexLock lock(&mutex_);
  if (operation->state == State::kQueued) return false;
  return operation->state == State::kEnded || !channel->closed.ok() || HasArrived(*operation);
}

void NcclGroup::Monitor() {
  std::optional<c10::DeviceGuard> guard;  // else calls may open another device's context
  try {
    guard.emplace(device_);
  } catch (const std::exception& error) {
    return CloseAll(absl::InternalError(FirstLine(error)));
  }
  absl::Time look_at_peers = absl::Now() + kClosedPeersPeriod;
  while (true) {
    {
      absl::MutexLock lock(&mutex_);
      auto over = [this]()
                      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return is_over_ || !closed_.ok(); };
      if (mutex_.AwaitWithTimeout(absl::Condition(&over), kMonitorPeriod)) break;
    }
    for (const ChannelPtr& channel : Channels()) Look(channel);
    if (absl::Now() < look_at_peers) continue;
    LookForClosedPeers();
    look_at_peers = absl::Now() + kClosedPeersPeriod;
  }
  // So that peers do not wait for what will not come. Who cannot be told runs into his time-out.
  const absl::StatusOr<int64_t> n = options_.store->Add("transport/num_closed", 1);
  if (n.ok()) options_.store->Set(ClosedKey(*n), absl::StrCat(options_.rank.value())).IgnoreError();
}

void NcclGroup::Look(const ChannelPtr& channel) {
  absl::Status error;
  {
    absl::MutexLock lock(&channel->mutex);
    if (channel->communicator == nullptr) return;
    ncclResult_t state = ncclSuccess;
    const ncclResult_t asked = ncclCommGetAsyncError(channel->communicator, &state);
    error =
        NcclStatus(asked == ncclSuccess ? state : asked, ncclGetLastError(channel->communicator));
  }
  if (!error.ok()) return CloseChannel(channel, Lost(*channel, error));
  absl::Status late;
  {
    absl::MutexLock lock(&mutex_);
    try {
      while (!channel->under_way.empty() && channel->under_way.front()->done.query()) {
        End(*channel->under_way.front(), absl::OkStatus());
        channel->under_way.pop_front();
      }
    } catch (const std::exception& error) {  // of an earlier kernel: nothing can run any more
      late = absl::InternalError(FirstLine(error));
    }
    if (late.ok() && !channel->under_way.empty()) {
      const Operation& oldest = *channel->under_way.front();
      if (absl::Now() - oldest.since > options_.transfer_timeout) {
        late = Late(*channel, oldest);
      }
    }
  }
  if (!late.ok()) CloseAll(late);
}

void NcclGroup::LookForClosedPeers() {
  while (true) {
    const std::string key = ClosedKey(num_closed_seen_ + 1);
    const absl::StatusOr<bool> is_there = options_.store->Check({key});
    if (!is_there.ok() || !*is_there) return;
    const absl::StatusOr<std::string> value = options_.store->Get(key, kStorePeriod);
    int32_t rank = -1;
    if (!value.ok() || !absl::SimpleAtoi(*value, &rank)) return;
    ++num_closed_seen_;
    const Rank peer(rank);
    const absl::Status gone =
        absl::UnavailableError(absl::StrCat(Name(peer), " closed the connection"));
    {
      absl::MutexLock lock(&mutex_);
      closed_peers_[peer] = gone;
    }
    for (const ChannelPtr& channel : Channels()) {
      if (channel->peer == peer) CloseChannel(channel, gone);
    }
  }
}

void NcclGroup::CloseAll(const absl::Status& why) {
  {
    absl::MutexLock lock(&mutex_);
    if (!closed_.ok()) return;
    closed_ = why;
  }
  for (const ChannelPtr& channel : Channels()) CloseChannel(channel, why);
}

// The reason is set before the abort: who sees what an abort leaves behind sees the reason, too.
void NcclGroup::CloseChannel(const ChannelPtr& channel, const absl::Status& why) {
  std::vector<at::Tensor> in_use;  // by kernels, until the abort has ended them
  {
    absl::MutexLock lock(&mutex_);
    if (!channel->closed.ok()) return;
    channel->closed = closed_.ok() ? why : closed_;
    for (std::deque<OperationPtr>* operations : {&channel->queued, &channel->under_way}) {
      for (const OperationPtr& operation : *operations) {
        // What has arrived stays so.
        const bool arrived = operation->state == State::kPosted && HasArrived(*operation);
        if (!arrived && lost_.ok()) lost_ = channel->closed;
        in_use.push_back(operation->tensor);
        End(*operation, arrived ? absl::OkStatus() : channel->closed);
      }
      operations->clear();
    }
  }
  absl::MutexLock lock(&channel->mutex);
  if (channel->aborted) return;
  channel->aborted = true;
  if (channel->communicator != nullptr) ncclCommAbort(channel->communicator);
  channel->communicator = nullptr;
}

void NcclGroup::Flush() {
  const absl::Time deadline = absl::Now() + kFlushPatience;
  for (const ChannelPtr& channel : Channels()) {
    while (absl::Now() < deadline) {
      {
        absl::MutexLock lock(&mutex_);
        if (!channel->is_send || !channel->closed.ok() || channel->under_way.empty() ||
            HasArrived(*channel->under_way.back()))
          break;
      }
      absl::SleepFor(kPollPeriod);
    }
  }
}

void NcclGroup::Close() {
  if (status().ok()) Flush();
  CloseAll(absl::CancelledError("the transport was closed"));
  {
    absl::MutexLock lock(&mutex_);
    is_over_ = true;
  }
  if (monitor_.joinable()) monitor_.join();
  for (const ChannelPtr& channel : Channels()) {
    if (channel->connector.joinable()) channel->connector.join();
    if (channel->stream != nullptr)
      cudaStreamDestroy(std::exchange(channel->stream, nullptr));  // when it has run empty
  }
}

class NcclTransfer final : public Transfer {
 public:
  NcclTransfer(std::shared_ptr<NcclGroup> group, ChannelPtr channel, OperationPtr operation)
      : group_(std::move(group)), channel_(std::move(channel)), operation_(std::move(operation)) {}
  absl::Status Wait() override { return group_->Wait(channel_, operation_); }
  bool Done() override { return group_->Done(channel_, operation_); }

 private:
  const std::shared_ptr<NcclGroup> group_;
  const ChannelPtr channel_;
  const OperationPtr operation_;
};

class NcclTransport final : public Transport {
 public:
  NcclTransport(std::unique_ptr<Transport> host, const TransportOptions& options)
      : host_(std::move(host)),
        group_(std::make_shared<NcclGroup>(options, c10::Device(options.device))) {}
  ~NcclTransport() override { group_->Close(); }
  Rank rank() const override { return host_->rank(); }
  int32_t size() const override { return host_->size(); }
  absl::StatusOr<std::unique_ptr<Transfer>> Send(Rank to, ChannelKind kind,
                                                 const at::Tensor& tensor) override {
    if (!tensor.defined() || tensor.is_cpu()) return host_->Send(to, kind, tensor);
    return Start(/*is_send=*/true, to, kind, tensor);
  }
  absl::StatusOr<std::unique_ptr<Transfer>> Receive(Rank from, ChannelKind kind,
                                                    at::Tensor tensor) override {
    if (!tensor.defined() || tensor.is_cpu()) return host_->Receive(from, kind, std::move(tensor));
    return Start(/*is_send=*/false, from, kind, std::move(tensor));
  }
  // NCCL first: the other side's reason is what the aborted kernels' readers look for.
  void Abort(const absl::Status& why) override {
    group_->Abort(why);
    host_->Abort(why);
  }
  absl::Status status() const override {
    const absl::Status status = group_->status();
    return status.ok() ? host_->status() : status;
  }

 private:
  absl::StatusOr<std::unique_ptr<Transfer>> Start(bool is_send, Rank peer, ChannelKind kind,
                                                  at::Tensor tensor) {
    SP_ASSIGN_OR_RETURN(auto started, group_->Start(is_send, peer, kind, std::move(tensor)));
    return std::make_unique<NcclTransfer>(group_, std::move(started.first),
                                          std::move(started.second));
  }

  const std::unique_ptr<Transport> host_;
  const std::shared_ptr<NcclGroup> group_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Transport>> MakeNcclTransport(const TransportOptions& options) {
  TransportOptions host_options = options;
  host_options.device = "cpu";
  SP_ASSIGN_OR_RETURN(std::unique_ptr<Transport> host, MakeGlooTransport(host_options));
  if (options.size == 1) return host;  // no channel, and maybe no store
  return std::make_unique<NcclTransport>(std::move(host), options);
}

}  // namespace smartpipe
