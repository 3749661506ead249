#include "worker/devices_main.h"

#include <iostream>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "services/base/status_macros.h"
#include "services/rpc/exit_codes.h"
#include "worker/comm/device_plugin.h"

namespace smartpipe {
namespace {

absl::Status PrintDevices() {
  SP_ASSIGN_OR_RETURN(DevicePlugin* const plugin, LoadDevicePlugin());
  SP_ASSIGN_OR_RETURN(const int32_t num_devices, plugin->NumDevices());
  for (int32_t index = 0; index < num_devices; ++index) {
    SP_ASSIGN_OR_RETURN(const DeviceInfo device, plugin->Describe(index));
    std::cout << "cuda:" << index << "  " << device.name << "  " << (device.memory_bytes >> 30)
              << " GiB  " << device.uuid << std::endl;
  }
  return absl::OkStatus();
}

}  // namespace

bool IsDevicesJob(absl::string_view word) { return word == "devices"; }

int DevicesMain(int argc, char** argv) {
  CLI::App app("List the GPUs that a worker of this machine could use.", "stage_worker");
  app.require_subcommand(1);
  app.add_subcommand("devices", "one line for each GPU");
  if (const auto code = ParseFlags<CLI::ParseError>(app, argc, argv)) return *code;
  const absl::Status status = PrintDevices();
  if (status.ok()) return 0;
  std::cerr << status.message() << std::endl;
  return 1;
}

}  // namespace smartpipe
