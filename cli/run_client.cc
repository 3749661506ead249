#include "cli/run_client.h"

#include <filesystem>
#include <fstream>
#include <system_error>

#include "CLI/CLI.hpp"
#include "absl/strings/str_cat.h"
#include "cli/commands.h"
#include "cli/complaint.h"
#include "cli/connection.h"
#include "services/base/files.h"
#include "services/base/limits.h"
#include "services/base/status_macros.h"
#include "services/config/run_config.h"
#include "services/rpc/address.h"
#include "services/rpc/tls_flags.h"

namespace smartpipe {
namespace {

constexpr char kGone[] =
    ": the run has ended or was cut off; `smartpipe train CONFIG --run-dir DIR --resume auto` goes "
    "on with one that is not finished";

/// The freeze service writes it when it serves.
absl::StatusOr<std::string> AddressIn(const std::string& run_dir) {
  std::ifstream file(run_dir + "/service_address");
  std::string address;
  if (std::getline(file, address) && ParseHostPort(address).ok()) return address;
  return absl::InvalidArgumentError(
      absl::StrCat(run_dir,
                   " has no service_address: it is no run directory, or its run has never "
                   "been served; give a run directory or HOST:PORT"));
}

/// Those with which `smartpipe train` started the run; none when there is no such config.
TlsFiles TlsFilesIn(const std::string& run) {
  const absl::StatusOr<std::string> text =
      ReadSmallFile(run + "/config.toml", limits::kConfigBytesMax);
  if (!text.ok()) return {};
  const absl::StatusOr<RunConfig> config = ParseRunConfig(*text, run);
  return config.ok() ? TlsFilesOf(*config) : TlsFiles();
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

/// Another run may be served at the address that a run once had.
absl::Status CheckSameRun(const std::string& run_dir, const std::string& address,
                          v1::FreezeService::StubInterface& stub) {
  std::ifstream file(run_dir + "/run_id");
  std::string run_id;
  if (!std::getline(file, run_id)) return absl::OkStatus();  // HOST:PORT
  const auto served = CallRun(stub, &v1::FreezeService::StubInterface::GetRun, v1::GetRunRequest());
  if (!served.ok() || served->run().run_id() == run_id) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat(address, " serves the run ", served->run().run_id(),
                                             " now, not that of ", run_dir, kGone));
}

}  // namespace

TlsFiles TlsOf(const RunTarget& target) {
  return target.tls.empty() && !target.run.empty() ? TlsFilesIn(target.run) : target.tls;
}

void AddRunTarget(CLI::App& command, RunTarget& target) {
  command.add_option("RUN", target.run, "run directory, or HOST:PORT of its freeze service")
      ->required()
      ->type_name("");
  AddTlsFlags(command, target.tls);
}

absl::StatusOr<std::unique_ptr<v1::FreezeService::StubInterface>> ConnectRun(
    const RunTarget& target, absl::Duration timeout) {
  const absl::StatusOr<std::string> address = AddressOf(target.run);
  if (!address.ok()) return address.status();
  const absl::StatusOr<std::shared_ptr<grpc::Channel>> channel =
      Connect(*address, TlsOf(target), timeout);
  if (!channel.ok() && !absl::IsUnavailable(channel.status())) return channel.status();
  if (!channel.ok()) {
    return absl::UnavailableError(absl::StrCat(channel.status().message(), kGone));
  }
  auto stub = v1::FreezeService::NewStub(*channel);
  SP_RETURN_IF_ERROR(CheckSameRun(target.run, *address, *stub));
  return stub;
}

bool IsUnreachable(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status);
}

int RunCommand(const RunTarget& target,
               const std::function<int(v1::FreezeService::StubInterface& stub)>& command) {
  const auto stub = ConnectRun(target);
  if (stub.ok()) return command(**stub);
  return Fail(stub.status(),
              absl::IsInvalidArgument(stub.status()) ? kExitUsage : kExitUnreachable);
}

}  // namespace smartpipe
