// The entry point of the CUDA plug-in.
#include <cuda_runtime_api.h>
#include <nccl.h>

#include <cstring>
#include <exception>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "c10/cuda/CUDAFunctions.h"
#include "services/base/status_macros.h"
#include "worker/comm/channel.h"
#include "worker/comm/device_plugin.h"
#include "worker/cuda/nccl_transport.h"

namespace smartpipe {
namespace {

// What to do about an error that keeps a machine from using its GPUs.
absl::string_view Cure(cudaError_t error) {
  switch (error) {
    case cudaErrorNoDevice:
      return "; give this process a GPU (a container: --gpus all, or a device request; "
             "CUDA_VISIBLE_DEVICES must not be empty), or set worker.device = \"cpu\"";
    case cudaErrorInsufficientDriver:
      return "; there is no NVIDIA driver, or an old one: install 580 or newer (a container needs "
             "the "
             "host's: --gpus all), or set worker.device = \"cpu\"";
    default:
      return "; `nvidia-smi` may tell more; or set worker.device = \"cpu\"";
  }
}

class CudaPlugin final : public DevicePlugin {
 public:
  absl::StatusOr<int32_t> NumDevices() override {
    int count = 0;
    const cudaError_t error = cudaGetDeviceCount(&count);
    if (error == cudaSuccess && count > 0) return count;
    const cudaError_t reason = error == cudaSuccess ? cudaErrorNoDevice : error;
    return absl::FailedPreconditionError(
        absl::StrCat("worker.device = \"cuda\", but this machine shows no GPU that can be used: ",
                     cudaGetErrorString(reason), Cure(reason)));
  }

  absl::StatusOr<DeviceInfo> Describe(int32_t index) override {
    SP_ASSIGN_OR_RETURN(const int32_t count, NumDevices());
    if (index < 0 || index >= count) {
      return absl::InvalidArgumentError(
          absl::StrCat("there is no GPU ", index, "; this process sees ", count));
    }
    cudaDeviceProp properties;
    if (const cudaError_t error = cudaGetDeviceProperties(&properties, index);
        error != cudaSuccess) {
      return absl::FailedPreconditionError(
          absl::StrCat("GPU ", index, ": ", cudaGetErrorString(error), Cure(error)));
    }
    return DeviceInfo{.index = index,
                      .name = properties.name,
                      .uuid = absl::BytesToHexString(
                          absl::string_view(properties.uuid.bytes, sizeof(properties.uuid.bytes))),
                      .memory_bytes = static_cast<int64_t>(properties.totalGlobalMem)};
  }

  absl::Status Use(int32_t index) override {
    try {
      c10::cuda::set_device(static_cast<c10::DeviceIndex>(index), /*force=*/true);
    } catch (const std::exception& error) {
      return absl::FailedPreconditionError(absl::StrCat("GPU ", index, ": ", FirstLine(error)));
    }
    return absl::OkStatus();
  }

  absl::StatusOr<std::unique_ptr<Transport>> MakeTransport(
      const TransportOptions& options) override {
    int version = 0;
    if (ncclGetVersion(&version) != ncclSuccess || version / 10'000 != NCCL_MAJOR) {
      return absl::FailedPreconditionError(
          absl::StrCat("the NCCL library is of version ", version, ", the plug-in was built with ",
                       NCCL_VERSION_CODE, "; ./dev cuda-deps fetches the right one"));
    }
    return MakeNcclTransport(options);
  }
};

}  // namespace
}  // namespace smartpipe

extern "C" __attribute__((visibility("default"))) smartpipe::DevicePlugin* smartpipe_device_plugin(
    const char* built_with) {
  if (std::strcmp(built_with, smartpipe::DevicePluginBuild()) != 0) return nullptr;
  static auto* const plugin = new smartpipe::CudaPlugin();
  return plugin;
}
