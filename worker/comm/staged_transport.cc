// Device tensors over a transport for host tensors: a copy on either side.
#include <memory>
#include <utility>

#include "ATen/ops/empty.h"
#include "absl/strings/str_cat.h"
#include "services/base/status_macros.h"
#include "worker/comm/channel.h"
#include "worker/comm/transport.h"

namespace smartpipe {
namespace {

// Of a receive: copies to the device when the host tensor is filled.
class StagedReceive final : public Transfer {
 public:
  StagedReceive(std::unique_ptr<Transfer> host, at::Tensor filled, at::Tensor tensor)
      : host_(std::move(host)), filled_(std::move(filled)), tensor_(std::move(tensor)) {}
  absl::Status Wait() override {
    SP_RETURN_IF_ERROR(host_->Wait());
    if (!filled_.defined()) return absl::OkStatus();
    tensor_.copy_(filled_);
    filled_.reset();
    tensor_.reset();
    return absl::OkStatus();
  }
  bool Done() override { return host_->Done(); }

 private:
  const std::unique_ptr<Transfer> host_;
  at::Tensor filled_;  // in host memory; undefined = copied
  at::Tensor tensor_;
};

class StagedTransport final : public Transport {
 public:
  StagedTransport(std::unique_ptr<Transport> host, bool host_tensors_too)
      : host_(std::move(host)), host_tensors_too_(host_tensors_too) {}
  Rank rank() const override { return host_->rank(); }
  int32_t size() const override { return host_->size(); }
  absl::StatusOr<std::unique_ptr<Transfer>> Send(Rank to, ChannelKind kind,
                                                 const at::Tensor& tensor) override {
    SP_RETURN_IF_ERROR(CheckDenseTensor(tensor));
    if (Passes(tensor)) return host_->Send(to, kind, tensor);
    return host_->Send(to, kind, tensor.detach().to(at::kCPU, tensor.scalar_type(), false, true));
  }
  absl::StatusOr<std::unique_ptr<Transfer>> Receive(Rank from, ChannelKind kind,
                                                    at::Tensor tensor) override {
    SP_RETURN_IF_ERROR(CheckDenseTensor(tensor));
    if (Passes(tensor)) return host_->Receive(from, kind, std::move(tensor));
    if (tensor.storage_offset() != 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("receiving into ", DescribeTensor(tensor),
                       " which does not own its storage; use a fresh tensor"));
    }
    at::Tensor filled = at::empty(tensor.sizes(), tensor.scalar_type());
    SP_ASSIGN_OR_RETURN(std::unique_ptr<Transfer> transfer, host_->Receive(from, kind, filled));
    return std::make_unique<StagedReceive>(std::move(transfer), std::move(filled),
                                           std::move(tensor));
  }
  void Abort(const absl::Status& why) override { host_->Abort(why); }
  absl::Status status() const override { return host_->status(); }

 private:
  bool Passes(const at::Tensor& tensor) const { return tensor.is_cpu() && !host_tensors_too_; }

  const std::unique_ptr<Transport> host_;
  const bool host_tensors_too_;
};

}  // namespace

std::unique_ptr<Transport> MakeStagedTransport(std::unique_ptr<Transport> host,
                                               bool host_tensors_too) {
  return std::make_unique<StagedTransport>(std::move(host), host_tensors_too);
}

}  // namespace smartpipe
