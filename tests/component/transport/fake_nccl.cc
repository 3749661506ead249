#include "tests/component/transport/fake_nccl.h"

#include <cuda_runtime_api.h>
#include <nccl.h>

#include <atomic>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <thread>
#include <utility>

#include "ATen/ops/empty.h"
#include "absl/strings/str_cat.h"
#include "c10/core/TensorImpl.h"
#include "c10/core/impl/DeviceGuardImplInterface.h"
#include "c10/cuda/CUDAStream.h"
#include "gtest/gtest.h"
#include "services/base/status_macros.h"
#include "torch/library.h"
#include "worker/cuda/nccl_transport.h"

namespace smartpipe::testutil {
namespace {

// One after the other, on a thread.
class FakeStream {
 public:
  FakeStream() : thread_([this] { Run(); }) {}
  ~FakeStream() {
    Add(nullptr);
    thread_.join();
  }
  void Add(std::function<void()> work) {
    std::lock_guard lock(mutex_);
    queue_.push_back(std::move(work));
    changed_.notify_all();
  }

 private:
  void Run() {
    while (true) {
      std::function<void()> work;
      {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [this] { return !queue_.empty(); });
        work = std::move(queue_.front());
        queue_.pop_front();
      }
      if (work == nullptr) return;
      work();
    }
  }
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> queue_;
  std::thread thread_;
};

// Stream of a compute thread: of the device, with number device + 1; of a channel: its address.
struct Streams {
  std::mutex mutex;
  std::map<c10::StreamId, std::shared_ptr<FakeStream>> all;
  std::shared_ptr<FakeStream> Of(const c10::Stream& stream) {
    std::lock_guard lock(mutex);
    std::shared_ptr<FakeStream>& found = all[stream.id()];
    if (found == nullptr) found = std::make_shared<FakeStream>();
    return found;
  }
};
Streams& AllStreams() {
  static auto* const streams = new Streams();
  return *streams;
}
constexpr c10::StreamId kComputeStreamsMax = 64;

c10::Stream ComputeStream(c10::DeviceIndex index) {
  return c10::Stream(c10::Stream::UNSAFE, c10::Device(c10::kCUDA, index), index + 1);
}

struct Moment {
  std::mutex mutex;
  std::condition_variable changed;
  bool has_come = false;
  void Come() {
    std::lock_guard lock(mutex);
    has_come = true;
    changed.notify_all();
  }
  void Wait() {
    std::unique_lock lock(mutex);
    changed.wait(lock, [this] { return has_come; });
  }
};
using MomentPtr = std::shared_ptr<Moment>;

MomentPtr Record(const c10::Stream& stream) {
  auto moment = std::make_shared<Moment>();
  AllStreams().Of(stream)->Add([moment] { moment->Come(); });
  return moment;
}

struct FakeGuard final : c10::impl::DeviceGuardImplInterface {
  static thread_local c10::DeviceIndex current;
  c10::DeviceType type() const override { return c10::kCUDA; }
  c10::Device exchangeDevice(c10::Device device) const override {
    return c10::Device(c10::kCUDA, std::exchange(current, device.index()));
  }
  c10::Device getDevice() const override { return c10::Device(c10::kCUDA, current); }
  void setDevice(c10::Device device) const override { current = device.index(); }
  void uncheckedSetDevice(c10::Device device) const noexcept override { current = device.index(); }
  c10::Stream getStream(c10::Device device) const override { return ComputeStream(device.index()); }
  c10::Stream exchangeStream(c10::Stream stream) const override { return stream; }
  c10::DeviceIndex deviceCount() const noexcept override { return 8; }
  void destroyEvent(void* event, c10::DeviceIndex /*index*/) const noexcept override {
    delete static_cast<MomentPtr*>(event);
  }
  void record(void** event, const c10::Stream& stream, c10::DeviceIndex /*index*/,
              c10::EventFlag /*flag*/) const override {
    if (*event == nullptr) *event = new MomentPtr();
    *static_cast<MomentPtr*>(*event) = Record(stream);
  }
  void block(void* event, const c10::Stream& stream) const override {
    MomentPtr moment = *static_cast<MomentPtr*>(event);
    AllStreams().Of(stream)->Add([moment] { moment->Wait(); });
  }
  bool queryEvent(void* event) const override {
    const MomentPtr moment = *static_cast<MomentPtr*>(event);
    std::lock_guard lock(moment->mutex);
    return moment->has_come;
  }
};
thread_local c10::DeviceIndex FakeGuard::current = 0;
C10_REGISTER_GUARD_IMPL(CUDA, FakeGuard)

// The host tensor's memory as a tensor of a device; keeps it alive.
at::Tensor OnDevice(const at::Tensor& host, c10::Device device) {
  c10::DataPtr data(
      host.data_ptr(), new at::Tensor(host),
      [](void* owner) { delete static_cast<at::Tensor*>(owner); }, device);
  c10::Storage storage(c10::Storage::use_byte_size_t(), host.nbytes(), std::move(data), nullptr,
                       /*resizable=*/false);
  at::Tensor tensor = at::detail::make_tensor<c10::TensorImpl>(
      std::move(storage), c10::DispatchKeySet(c10::DispatchKey::CUDA), host.dtype());
  tensor.unsafeGetTensorImpl()->set_sizes_and_strides(host.sizes(), host.strides());
  return tensor;
}

at::Tensor Empty(c10::SymIntArrayRef size, std::optional<at::ScalarType> dtype,
                 std::optional<at::Layout> /*layout*/, std::optional<at::Device> device,
                 std::optional<bool> /*pin*/, std::optional<at::MemoryFormat> /*format*/) {
  return OnDevice(at::empty(C10_AS_INTARRAYREF_SLOW(size), dtype.value_or(at::kFloat)),
                  device.value_or(c10::Device(c10::kCUDA, 0)));
}
TORCH_LIBRARY_IMPL(aten, CUDA, library) { library.impl("empty.memory_format", Empty); }

// Two ranks with one id. Sends meet receives in order.
struct Pair {
  struct Message {
    void* data;
    size_t num_bytes;
    bool done = false;
  };
  std::mutex mutex;
  std::condition_variable changed;
  int num_joined = 0;
  std::deque<std::shared_ptr<Message>> sends, receives;
};

struct Pairs {
  std::mutex mutex;
  std::map<std::string, std::shared_ptr<Pair>> all;
  int64_t num_ids = 0;
  int num_communicators = 0;
};
Pairs& AllPairs() {
  static auto* const pairs = new Pairs();
  return *pairs;
}

struct Communicator {
  std::shared_ptr<Pair> pair;
  std::shared_ptr<std::atomic<bool>> aborted = std::make_shared<std::atomic<bool>>(false);
};

Communicator& Of(ncclComm_t communicator) { return *reinterpret_cast<Communicator*>(communicator); }

ncclResult_t Start(bool is_send, void* data, size_t num_bytes, ncclComm_t communicator,
                   cudaStream_t stream) {
  const c10::Stream its_stream(c10::Stream::UNSAFE, c10::Device(c10::kCUDA, 0),
                               reinterpret_cast<c10::StreamId>(stream));
  auto work = [is_send, data, num_bytes, pair = Of(communicator).pair,
               aborted = Of(communicator).aborted] {
    auto message = std::make_shared<Pair::Message>(Pair::Message{data, num_bytes});
    std::unique_lock lock(pair->mutex);
    if (*aborted) return;
    auto& own = is_send ? pair->sends : pair->receives;
    own.push_back(message);
    if (!pair->sends.empty() && !pair->receives.empty()) {
      Pair::Message& send = *pair->sends.front();
      Pair::Message& receive = *pair->receives.front();
      std::memcpy(receive.data, send.data, std::min(send.num_bytes, receive.num_bytes));
      send.done = receive.done = true;
      pair->sends.pop_front();
      pair->receives.pop_front();
      pair->changed.notify_all();
    }
    pair->changed.wait(lock, [&] { return message->done || *aborted; });
    if (!message->done) std::erase(own, message);
  };
  AllStreams().Of(its_stream)->Add(std::move(work));
  return ncclInProgress;
}

// Waits for the device, too, as who reads the number would.
class FakeTransfer final : public Transfer {
 public:
  FakeTransfer(std::unique_ptr<Transfer> inner, Rank rank, at::Tensor tensor)
      : tensor_(std::move(tensor)), inner_(std::move(inner)), rank_(rank) {}
  absl::Status Wait() override {
    SP_RETURN_IF_ERROR(inner_->Wait());
    Record(ComputeStream(static_cast<c10::DeviceIndex>(rank_.value())))->Wait();
    return inner_->Wait();
  }
  bool Done() override { return inner_->Done(); }

 private:
  // The memory of a real device would not be used by others before its stream got behind the wait.
  const at::Tensor tensor_;
  const std::unique_ptr<Transfer> inner_;
  const Rank rank_;
};

class FakeTransport final : public Transport {
 public:
  explicit FakeTransport(std::unique_ptr<Transport> inner) : inner_(std::move(inner)) {}
  Rank rank() const override { return inner_->rank(); }
  int32_t size() const override { return inner_->size(); }
  absl::StatusOr<std::unique_ptr<Transfer>> Send(Rank to, ChannelKind kind,
                                                 const at::Tensor& tensor) override {
    return Wrap(inner_->Send(to, kind, OnDevice(tensor, device())), tensor);
  }
  absl::StatusOr<std::unique_ptr<Transfer>> Receive(Rank from, ChannelKind kind,
                                                    at::Tensor tensor) override {
    return Wrap(inner_->Receive(from, kind, OnDevice(tensor, device())), tensor);
  }
  void Abort(const absl::Status& why) override { inner_->Abort(why); }
  absl::Status status() const override { return inner_->status(); }

 private:
  c10::Device device() const {
    return c10::Device(c10::kCUDA, static_cast<c10::DeviceIndex>(inner_->rank().value()));
  }
  absl::StatusOr<std::unique_ptr<Transfer>> Wrap(absl::StatusOr<std::unique_ptr<Transfer>> inner,
                                                 const at::Tensor& tensor) {
    SP_RETURN_IF_ERROR(inner.status());
    return std::make_unique<FakeTransfer>(*std::move(inner), inner_->rank(), tensor);
  }
  const std::unique_ptr<Transport> inner_;
};

}  // namespace

TransportKind FakeNcclKind() {
  return {.name = "FakeNccl",
          .names_members = true,
          .buffers_sends = false,
          .wrong_shape = absl::OkStatus(),
          .on_gpus = true,
          .make = [](int32_t size, absl::Duration transfer_timeout) {
            return MakeGroup(
                size, transfer_timeout,
                [](TransportOptions options) -> absl::StatusOr<std::unique_ptr<Transport>> {
                  options.device = absl::StrCat("cuda:", options.rank.value());
                  SP_ASSIGN_OR_RETURN(auto transport, MakeNcclTransport(options));
                  return std::make_unique<FakeTransport>(std::move(transport));
                });
          }};
}

int NumFakeCommunicators() {
  std::lock_guard lock(AllPairs().mutex);
  return AllPairs().num_communicators;
}

int NumFakeStreams() {
  std::lock_guard lock(AllStreams().mutex);
  int num = 0;
  for (const auto& [id, stream] : AllStreams().all) num += id > kComputeStreamsMax;
  return num;
}

}  // namespace smartpipe::testutil

using smartpipe::testutil::AllPairs;
using smartpipe::testutil::AllStreams;
using smartpipe::testutil::Communicator;
using smartpipe::testutil::Of;
using smartpipe::testutil::Pair;
using smartpipe::testutil::Start;

namespace c10::cuda {

CUDAStream getCurrentCUDAStream(DeviceIndex index) {
  return CUDAStream(CUDAStream::UNCHECKED, smartpipe::testutil::ComputeStream(index));
}
CUDAStream getStreamFromExternal(cudaStream_t stream, DeviceIndex index) {
  return CUDAStream(CUDAStream::UNCHECKED, Stream(Stream::UNSAFE, Device(kCUDA, index),
                                                  reinterpret_cast<StreamId>(stream)));
}

}  // namespace c10::cuda

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned int /*flags*/) {
  *stream = reinterpret_cast<cudaStream_t>(new char());
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  std::shared_ptr<smartpipe::testutil::FakeStream> ended;
  {
    std::lock_guard lock(AllStreams().mutex);
    auto node = AllStreams().all.extract(reinterpret_cast<c10::StreamId>(stream));
    if (!node.empty()) ended = std::move(node.mapped());
  }
  ended.reset();
  delete reinterpret_cast<char*>(stream);
  return cudaSuccess;
}
const char* cudaGetErrorString(cudaError_t /*error*/) { return "an error of the fake CUDA"; }

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  std::lock_guard lock(AllPairs().mutex);
  std::memset(id, 0, sizeof(*id));
  const std::string text = absl::StrCat(++AllPairs().num_ids);
  std::memcpy(id->internal, text.data(), text.size());
  return ncclSuccess;
}
ncclResult_t ncclCommInitRankConfig(ncclComm_t* communicator, int /*size*/, ncclUniqueId id,
                                    int /*rank*/, ncclConfig_t* config) {
  if (config->blocking != 0) return ncclInvalidArgument;
  auto made = std::make_unique<Communicator>();
  {
    std::lock_guard lock(AllPairs().mutex);
    ++AllPairs().num_communicators;
    std::shared_ptr<Pair>& pair = AllPairs().all[id.internal];
    if (pair == nullptr) pair = std::make_shared<Pair>();
    made->pair = pair;
  }
  std::lock_guard lock(made->pair->mutex);
  ++made->pair->num_joined;
  *communicator = reinterpret_cast<ncclComm_t>(made.release());
  return ncclInProgress;
}
ncclResult_t ncclCommGetAsyncError(ncclComm_t communicator, ncclResult_t* state) {
  std::lock_guard lock(Of(communicator).pair->mutex);
  *state = Of(communicator).pair->num_joined == 2 ? ncclSuccess : ncclInProgress;
  return ncclSuccess;
}
ncclResult_t ncclSend(const void* data, size_t num_bytes, ncclDataType_t /*type*/, int /*peer*/,
                      ncclComm_t communicator, cudaStream_t stream) {
  return Start(/*is_send=*/true, const_cast<void*>(data), num_bytes, communicator, stream);
}
ncclResult_t ncclRecv(void* data, size_t num_bytes, ncclDataType_t /*type*/, int /*peer*/,
                      ncclComm_t communicator, cudaStream_t stream) {
  return Start(/*is_send=*/false, data, num_bytes, communicator, stream);
}
ncclResult_t ncclCommAbort(ncclComm_t communicator) {
  {
    std::lock_guard lock(Of(communicator).pair->mutex);
    *Of(communicator).aborted = true;
    Of(communicator).pair->changed.notify_all();
  }
  delete &Of(communicator);
  std::lock_guard lock(AllPairs().mutex);
  --AllPairs().num_communicators;
  return ncclSuccess;
}
const char* ncclGetErrorString(ncclResult_t /*result*/) { return "an error of the fake NCCL"; }
const char* ncclGetLastError(ncclComm_t /*communicator*/) { return ""; }
