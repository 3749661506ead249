#include "worker/engine/compute_device.h"

namespace smartpipe {

at::Tensor ToDevice(const at::Tensor& host, at::Device device) {
  if (host.device() == device) return host;
  return host.pin_memory().to(host.options().device(device), /*non_blocking=*/true);
}

at::Tensor StateToDevice(const at::Tensor& host, at::Device device) {
  if (host.device() == device || host.scalar_type() != at::kFloat) return host;
  return host.to(host.options().device(device));
}

void MoveToDevice(const Layer& layer, at::Device device) {
  for (const std::vector<NamedTensor>* tensors : {&layer.parameters(), &layer.buffers()}) {
    for (const NamedTensor& named : *tensors) {
      const at::Tensor moved = StateToDevice(named.tensor.detach(), device);
      if (moved.device() != named.tensor.device()) named.tensor.set_data(moved);
    }
  }
}

}  // namespace smartpipe
