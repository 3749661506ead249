// How the command reaches a service.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "grpcpp/channel.h"
#include "services/config/run_config.h"
#include "services/rpc/tls.h"

namespace CLI {
class App;
}

namespace smartpipe {

struct ConnectionArguments {
  std::string service_address;  // HOST:PORT of the freeze service
  TlsFiles tls;                 // none = plaintext
};

/// Adds --service, --tls-ca, --tls-cert and --tls-key; they are read into `arguments`.
void AddConnectionOptions(CLI::App& command, ConnectionArguments& arguments);

/// A channel to the service that answers.
/// Errors: INVALID_ARGUMENT (malformed address), those of CheckTlsFiles, UNAVAILABLE when nobody
/// answers within `timeout`.
absl::StatusOr<std::shared_ptr<grpc::Channel>> Connect(const ConnectionArguments& arguments,
                                                       absl::Duration timeout = absl::Seconds(5));

/// Those of a local run.
TlsFiles TlsFilesOf(const RunConfig& config);
/// The flags that give them to a program; none for none.
std::vector<std::string> TlsFlags(const TlsFiles& files);

}  // namespace smartpipe
