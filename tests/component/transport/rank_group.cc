#include "tests/component/transport/rank_group.h"

#include <cstring>
#include <thread>

#include "ATen/ops/empty.h"
#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "services/base/memory_key_value_store.h"
#include "services/base/status_macros.h"
#include "worker/comm/device_plugin.h"

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

std::vector<std::unique_ptr<Transport>> MakeGroup(
    int32_t size, absl::Duration transfer_timeout,
    const std::function<absl::StatusOr<std::unique_ptr<Transport>>(TransportOptions options)>&
        make) {
  auto store = std::make_shared<MemoryKeyValueStore>();
  std::vector<std::unique_ptr<Transport>> transports(static_cast<size_t>(size));
  RunRanks(size, [&](Rank rank) {
    absl::StatusOr<std::unique_ptr<Transport>> transport =
        make({.rank = rank,
              .size = size,
              .member_names = MemberNames(size),
              .store = store,
              .transfer_timeout = transfer_timeout});
    ASSERT_TRUE(transport.ok()) << transport.status();
    transports[static_cast<size_t>(rank.value())] = *std::move(transport);
  });
  return transports;
}

TransportKind GlooKind() {
  return {.name = "Gloo",
          .names_members = true,
          .buffers_sends = false,
          .wrong_shape = absl::DeadlineExceededError(""),
          .make = [](int32_t size, absl::Duration transfer_timeout) {
            return MakeGroup(size, transfer_timeout, MakeGlooTransport);
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

TransportKind StagedKind() {
  TransportKind kind = LoopbackKind(/*rendezvous=*/true);
  kind.name = "Staged";
  kind.make = [make = kind.make](int32_t size, absl::Duration transfer_timeout) {
    std::vector<std::unique_ptr<Transport>> transports = make(size, transfer_timeout);
    for (auto& transport : transports)
      transport = MakeStagedTransport(std::move(transport), /*host_tensors_too=*/true);
    return transports;
  };
  return kind;
}

namespace {

at::Device Gpu(Rank rank) {
  return at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(rank.value()));
}

// Waits for the GPU, too, and brings back what it received.
class GpuTransfer final : public Transfer {
 public:
  GpuTransfer(std::unique_ptr<Transfer> inner, at::Tensor on_gpu, at::Tensor on_host)
      : inner_(std::move(inner)), on_gpu_(std::move(on_gpu)), on_host_(std::move(on_host)) {}
  absl::Status Wait() override {
    SP_RETURN_IF_ERROR(inner_->Wait());
    if (on_host_.defined()) {
      on_host_.copy_(on_gpu_);
    } else {
      on_gpu_.cpu();
    }
    return inner_->Wait();  // what an abort left behind is not taken for the message
  }
  bool Done() override { return inner_->Done(); }

 private:
  const std::unique_ptr<Transfer> inner_;
  const at::Tensor on_gpu_;
  const at::Tensor on_host_;  // of a receive
};

class GpuTransport final : public Transport {
 public:
  explicit GpuTransport(std::unique_ptr<Transport> inner) : inner_(std::move(inner)) {}
  Rank rank() const override { return inner_->rank(); }
  int32_t size() const override { return inner_->size(); }
  absl::StatusOr<std::unique_ptr<Transfer>> Send(Rank to, ChannelKind kind,
                                                 const at::Tensor& tensor) override {
    at::Tensor on_gpu = OnGpu(tensor);
    return Wrap(inner_->Send(to, kind, on_gpu), on_gpu, {});
  }
  absl::StatusOr<std::unique_ptr<Transfer>> Receive(Rank from, ChannelKind kind,
                                                    at::Tensor tensor) override {
    at::Tensor on_gpu = OnGpu(tensor);
    return Wrap(inner_->Receive(from, kind, on_gpu), on_gpu, tensor);
  }
  void Abort(const absl::Status& why) override { inner_->Abort(why); }
  absl::Status status() const override { return inner_->status(); }

 private:
  at::Tensor OnGpu(const at::Tensor& tensor) const {
    return tensor.to(tensor.options().device(Gpu(inner_->rank())));
  }
  static absl::StatusOr<std::unique_ptr<Transfer>> Wrap(
      absl::StatusOr<std::unique_ptr<Transfer>> inner, at::Tensor on_gpu, at::Tensor on_host) {
    SP_RETURN_IF_ERROR(inner.status());
    return std::make_unique<GpuTransfer>(*std::move(inner), std::move(on_gpu), std::move(on_host));
  }

  const std::unique_ptr<Transport> inner_;
};

}  // namespace

absl::StatusOr<int32_t> NumGpus() {
  SP_ASSIGN_OR_RETURN(DevicePlugin* const plugin, LoadDevicePlugin());
  return plugin->NumDevices();
}

TransportKind NcclKind() {
  return {.name = "Nccl",
          .names_members = true,
          .buffers_sends = false,
          .wrong_shape = absl::OkStatus(),
          .on_gpus = true,
          .make = [](int32_t size, absl::Duration transfer_timeout) {
            return MakeGroup(
                size, transfer_timeout,
                [](TransportOptions options) -> absl::StatusOr<std::unique_ptr<Transport>> {
                  SP_ASSIGN_OR_RETURN(const UsedDevice device,
                                      UseDevice("cuda", options.rank.value()));
                  SP_ASSIGN_OR_RETURN(auto transport, MakeTransport(device, options));
                  return std::make_unique<GpuTransport>(std::move(transport));
                });
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
