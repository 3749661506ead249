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

namespace smartpipe {

/// A channel to the freeze service at `address`, which answers; no files = plaintext.
/// Errors: those of CheckTlsFiles, UNAVAILABLE when nobody answers within `timeout`.
absl::StatusOr<std::shared_ptr<grpc::Channel>> Connect(const std::string& address,
                                                       const TlsFiles& tls, absl::Duration timeout);

/// Those of a local run.
TlsFiles TlsFilesOf(const RunConfig& config);
/// The flags that give them to a program; none for none.
std::vector<std::string> TlsFlags(const TlsFiles& files);

}  // namespace smartpipe
