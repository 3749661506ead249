#include "cli/connection.h"

#include "absl/time/clock.h"
#include "services/base/status_macros.h"
#include "services/rpc/channel.h"

namespace smartpipe {

absl::StatusOr<std::shared_ptr<grpc::Channel>> Connect(const std::string& address,
                                                       const TlsFiles& tls,
                                                       absl::Duration timeout) {
  SP_RETURN_IF_ERROR(CheckTlsFiles(tls, absl::Now()));
  std::shared_ptr<grpc::Channel> channel =
      MakeChannel({.address = address, .keepalive = {}, .tls = tls});
  SP_RETURN_IF_ERROR(WaitConnected(*channel, address, timeout, tls));
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
