#include "cli/connection.h"

#include "CLI/CLI.hpp"
#include "absl/time/clock.h"
#include "services/base/status_macros.h"
#include "services/rpc/address.h"
#include "services/rpc/channel.h"
#include "services/rpc/tls_flags.h"

namespace smartpipe {

void AddConnectionOptions(CLI::App& command, ConnectionArguments& arguments) {
  command.add_option("--service", arguments.service_address, "where the freeze service listens")
      ->required()
      ->type_name("HOST:PORT");
  AddTlsFlags(command, arguments.tls);
}

absl::StatusOr<std::shared_ptr<grpc::Channel>> Connect(const ConnectionArguments& arguments,
                                                       absl::Duration timeout) {
  SP_RETURN_IF_ERROR(Annotate(ParseHostPort(arguments.service_address).status(), "--service"));
  SP_RETURN_IF_ERROR(CheckTlsFiles(arguments.tls, absl::Now()));
  std::shared_ptr<grpc::Channel> channel =
      MakeChannel({.address = arguments.service_address, .keepalive = {}, .tls = arguments.tls});
  SP_RETURN_IF_ERROR(WaitConnected(*channel, arguments.service_address, timeout, arguments.tls));
  return channel;
}

TlsFiles TlsFilesOf(const RunConfig& config) {
  return {.ca = config.tls.ca, .cert = config.tls.cert, .key = config.tls.key};
}

std::vector<std::string> TlsFlags(const TlsFiles& files) {
  if (files.empty()) return {};
  return {"--tls-ca", files.ca, "--tls-cert", files.cert, "--tls-key", files.key};
}

}  // namespace smartpipe
