#include "worker/comm/device_plugin.h"

#include <dlfcn.h>
#include <unistd.h>

#include <cstdlib>
#include <map>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "services/base/status_macros.h"
#include "services/base/version.h"
#include "services/obs/log.h"
#include "worker/comm/channel.h"

namespace smartpipe {
namespace {

constexpr char kBuildIt[] =
    "; build it with ./dev cuda (docs/gpu.md), or set worker.device = \"cpu\"";
constexpr char kFetchLibraries[] =
    "; ./dev cuda-deps fetches the libraries that it needs (docs/gpu.md), or set worker.device = "
    "\"cpu\"";

// The folder of this program; empty if the system does not tell.
std::string ProgramDir() {
  char path[4096];
  const ssize_t length = readlink("/proc/self/exe", path, sizeof(path));
  const std::string text(path, length > 0 ? static_cast<size_t>(length) : 0);
  return text.substr(0, text.rfind('/'));
}

absl::StatusOr<std::string> FindPlugin() {
  if (const char* path = std::getenv("SMARTPIPE_CUDA_PLUGIN"); path != nullptr && *path != '\0')
    return std::string(path);
  const std::string dir = ProgramDir();
  for (const char* place : {"/../lib/", "/../lib/smartpipe/", "/"}) {
    std::string path = absl::StrCat(dir, place, kDevicePluginFile);
    if (access(path.c_str(), R_OK) == 0) return path;
  }
  return absl::FailedPreconditionError(
      absl::StrCat("worker.device = \"cuda\" needs the CUDA plug-in, but there is no ",
                   kDevicePluginFile, " in ", dir, "/../lib", kBuildIt));
}

}  // namespace

const char* DevicePluginBuild() { return SMARTPIPE_VERSION "/1"; }

absl::StatusOr<DevicePlugin*> LoadDevicePlugin(const std::string& path) {
  std::string file = path;
  if (file.empty()) {
    SP_ASSIGN_OR_RETURN(file, FindPlugin());
  }
  void* library = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const std::string why = dlerror();
    const bool is_missing =
        absl::StrContains(why, "cannot open shared object file") && !absl::StartsWith(why, file);
    return absl::FailedPreconditionError(absl::StrCat("the CUDA plug-in cannot be loaded: ", why,
                                                      is_missing ? kFetchLibraries : kBuildIt));
  }
  const auto entry = reinterpret_cast<DevicePluginEntry>(dlsym(library, kDevicePluginEntry));
  DevicePlugin* const plugin = entry == nullptr ? nullptr : entry(DevicePluginBuild());
  if (plugin != nullptr) return plugin;
  dlclose(library);
  return absl::FailedPreconditionError(absl::StrCat(
      file, " is not the CUDA plug-in of this build (", DevicePluginBuild(), ")", kBuildIt));
}

int32_t DeviceIndex(int32_t wanted, int32_t num_devices) {
  if (wanted < 0) {
    wanted = 0;
    for (const char* name :
         {"LOCAL_RANK", "SLURM_LOCALID", "OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID"}) {
      const char* text = std::getenv(name);
      int32_t value = 0;
      if (text == nullptr || !absl::SimpleAtoi(text, &value) || value < 0) continue;
      wanted = value;
      break;
    }
  }
  return wanted % num_devices;
}

absl::StatusOr<UsedDevice> UseDevice(const std::string& kind, int32_t wanted) {
  UsedDevice device;
  if (kind == "cpu") return device;
  SP_ASSIGN_OR_RETURN(device.plugin, LoadDevicePlugin());
  SP_ASSIGN_OR_RETURN(const int32_t num_devices, device.plugin->NumDevices());
  const int32_t index = DeviceIndex(wanted, num_devices);
  SP_ASSIGN_OR_RETURN(device.info, device.plugin->Describe(index));
  SP_RETURN_IF_ERROR(device.plugin->Use(index));
  device.name = absl::StrCat(kind, ":", index);
  return device;
}

absl::StatusOr<std::unique_ptr<Transport>> MakeTransport(const UsedDevice& device,
                                                         TransportOptions options) {
  options.device = device.name;
  if (device.plugin == nullptr) return MakeGlooTransport(options);
  return MakeDeviceTransport(*device.plugin, options, device.info.uuid);
}

absl::StatusOr<std::unique_ptr<Transport>> MakeDeviceTransport(DevicePlugin& plugin,
                                                               const TransportOptions& options,
                                                               const std::string& uuid) {
  if (options.size == 1) return plugin.MakeTransport(options);
  const absl::Time deadline = absl::Now() + options.connect_timeout;
  auto key = [](int32_t rank) { return absl::StrCat("transport/device/", rank); };
  SP_RETURN_IF_ERROR(options.store->Set(key(options.rank.value()), uuid));
  std::map<std::string, int32_t> owners;  // first rank of each device
  std::string shared;                     // the first two ranks with one device
  for (int32_t rank = 0; rank < options.size; ++rank) {
    absl::StatusOr<std::string> device = options.store->Get(key(rank), deadline - absl::Now());
    if (absl::IsDeadlineExceeded(device.status())) {
      return absl::DeadlineExceededError(
          absl::StrCat("waited ", absl::ToDoubleSeconds(options.connect_timeout), " s for ",
                       DescribeRank(Rank(rank), options.member_names), " to name its device"));
    }
    SP_RETURN_IF_ERROR(device.status());
    const auto [owner, is_first] = owners.emplace(*std::move(device), rank);
    if (!is_first && shared.empty()) {
      shared = absl::StrCat(DescribeRank(Rank(owner->second), options.member_names), " and ",
                            DescribeRank(Rank(rank), options.member_names));
    }
  }
  if (shared.empty()) return plugin.MakeTransport(options);
  if (options.rank == Rank(0)) {
    LogInfo(shared,
            " share a GPU, which NCCL does not support: tensors go through host memory and "
            "Gloo, which is slower; give each worker a GPU of its own for NCCL");
  }
  TransportOptions host = options;
  host.device = "cpu";
  SP_ASSIGN_OR_RETURN(std::unique_ptr<Transport> transport, MakeGlooTransport(host));
  return MakeStagedTransport(std::move(transport));
}

}  // namespace smartpipe
