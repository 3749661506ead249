// The CUDA part of a worker: a shared library that is loaded when a run asks for worker.device =
// "cuda", so that one program runs with and without CUDA.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/comm/transport.h"

namespace smartpipe {

/// One device that this process may use.
struct DeviceInfo {
  int32_t index = 0;         // among the visible ones
  std::string name;          // "NVIDIA H100 80GB HBM3"
  std::string uuid;          // of the piece of hardware, wherever it is; 32 hex digits
  int64_t memory_bytes = 0;  // in all
};

/// What the shared library does.  Threads: all methods from any thread.
class DevicePlugin {
 public:
  virtual ~DevicePlugin() = default;
  /// Devices that this process sees, >= 1 (CUDA_VISIBLE_DEVICES hides some).  Errors:
  /// FAILED_PRECONDITION with the driver's reason and a cure when there is none.
  virtual absl::StatusOr<int32_t> NumDevices() = 0;
  /// INVALID_ARGUMENT unless 0 <= index < NumDevices().
  virtual absl::StatusOr<DeviceInfo> Describe(int32_t index) = 0;
  /// Makes the device the calling thread's own; its streams and new tensors are there from now on.
  virtual absl::Status Use(int32_t index) = 0;
  /// NCCL for tensors of options.device ("cuda:<index>"), Gloo for those in host memory. Every rank
  /// must have a device of its own.  Errors: as MakeGlooTransport; FAILED_PRECONDITION when NCCL
  /// cannot be used.
  virtual absl::StatusOr<std::unique_ptr<Transport>> MakeTransport(
      const TransportOptions& options) = 0;
};

/// The plug-in's entry point: an extern "C" function of this type and name. It returns an object
/// that lives as long as the process, or null when `built_with` is not what the plug-in was built
/// with: both must come from one build, as they share C++ types.
using DevicePluginEntry = DevicePlugin* (*)(const char* built_with);
inline constexpr char kDevicePluginEntry[] = "smartpipe_device_plugin";
inline constexpr char kDevicePluginFile[] = "libsmartpipe_cuda.so";
/// "0.1.0/1": version, and number of this interface.
const char* DevicePluginBuild();

/// Loads the plug-in from `path`, or, if empty, from $SMARTPIPE_CUDA_PLUGIN or the first of
/// ../lib, ../lib/smartpipe and . beside this program that has it. It stays loaded.
/// Errors: FAILED_PRECONDITION: what is missing (the plug-in, a library of it) and what to do.
/// Threads: any, not at once.
absl::StatusOr<DevicePlugin*> LoadDevicePlugin(const std::string& path = "");

/// Which device a worker takes: `wanted` if it is >= 0, else the first of LOCAL_RANK,
/// SLURM_LOCALID, OMPI_COMM_WORLD_LOCAL_RANK and MPI_LOCALRANKID that holds a number, else 0;
/// modulo num_devices (>= 1). Threads: reads the environment.
int32_t DeviceIndex(int32_t wanted, int32_t num_devices);

/// What a worker computes on.
struct UsedDevice {
  std::string name = "cpu";        // as Torch writes it: "cuda:0"
  DevicePlugin* plugin = nullptr;  // null = the CPU
  DeviceInfo info;                 // of the GPU
};

/// The device for worker.device = `kind` ("cpu" or "cuda"), made the calling thread's own; `wanted`
/// as for DeviceIndex.  Errors: FAILED_PRECONDITION: what is missing, and what to do.
absl::StatusOr<UsedDevice> UseDevice(const std::string& kind, int32_t wanted);

/// Gloo for the CPU, else MakeDeviceTransport.
absl::StatusOr<std::unique_ptr<Transport>> MakeTransport(const UsedDevice& device,
                                                         TransportOptions options);

/// The plug-in's transport if every rank has a device of its own. If two share one, which NCCL
/// refuses, Gloo with copies through host memory, and rank 0 logs which two. Every rank calls it,
/// with the `uuid` of its device.  Errors: as DevicePlugin::MakeTransport.  Test:
/// tests/unit/comm/device_plugin_test.cc
absl::StatusOr<std::unique_ptr<Transport>> MakeDeviceTransport(DevicePlugin& plugin,
                                                               const TransportOptions& options,
                                                               const std::string& uuid);

}  // namespace smartpipe
