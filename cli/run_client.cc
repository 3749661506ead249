#include "cli/run_client.h"

#include <filesystem>
#include <fstream>
#include <system_error>

#include "CLI/CLI.hpp"
#include "absl/strings/str_cat.h"
#include "services/rpc/address.h"

namespace smartpipe {
namespace {

/// The freeze service writes it when it serves.
absl::StatusOr<std::string> AddressIn(const std::string& run_dir) {
  std::ifstream file(run_dir + "/service_address");
  std::string address;
  if (std::getline(file, address) && ParseHostPort(address).ok()) return address;
  return absl::InvalidArgumentError(
      absl::StrCat(run_dir, " has no service_address: it is no run directory, or its run has never "
                            "been served; give a run directory or HOST:PORT"));
}

absl::StatusOr<std::string> AddressOf(const std::string& run) {
  std::error_code error;
  if (std::filesystem::is_directory(run, error)) return AddressIn(run);
  if (const absl::StatusOr<HostPort> address = ParseHostPort(run);
      address.ok() && address->port > 0) {
    return run;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("\"", run, "\" is neither a run directory nor HOST:PORT of a freeze service"));
}

}  // namespace

void AddRunTarget(CLI::App& command, RunTarget& target) {
  command.add_option("RUN", target.run, "run directory, or HOST:PORT of its freeze service")
      ->required()
      ->type_name("");
}

absl::StatusOr<std::unique_ptr<v1::FreezeService::StubInterface>> ConnectRun(
    const RunTarget& target, absl::Duration timeout) {
  const absl::StatusOr<std::string> address = AddressOf(target.run);
  if (!address.ok()) return address.status();
  const std::shared_ptr<grpc::Channel> channel = MakeChannel({.address = *address, .keepalive = {}});
  const absl::Status connected = WaitConnected(*channel, *address, timeout);
  if (!connected.ok()) {
    return absl::UnavailableError(
        absl::StrCat(connected.message(), ": the run has ended or was cut off; `smartpipe train "
                                          "CONFIG --run-dir DIR --resume auto` goes on with one "
                                          "that is not finished"));
  }
  return v1::FreezeService::NewStub(channel);
}

}  // namespace smartpipe
