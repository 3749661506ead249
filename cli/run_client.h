// How a command reaches the freeze service of a run, on this machine or another.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "services/rpc/tls.h"
#include "smartpipe/v1/freeze_service.grpc.pb.h"

namespace CLI {
class App;
}

namespace smartpipe {

/// Exit code of a command whose run cannot be reached.
inline constexpr int kExitUnreachable = 3;

struct RunTarget {
  std::string run;  // a run directory, or HOST:PORT of the freeze service
  TlsFiles tls;     // none = those of the run directory's config, if it has any
};

/// Adds the argument RUN, --tls-ca, --tls-cert and --tls-key; they are read into `target`.
void AddRunTarget(CLI::App& command, RunTarget& target);

/// The certificates to use: target.tls, or those of the run directory's config.
TlsFiles TlsOf(const RunTarget& target);

/// A stub for a service that answers.
/// Errors: INVALID_ARGUMENT (neither a run directory nor an address), those of CheckTlsFiles,
/// UNAVAILABLE when nobody answers within `timeout`, or another run does; each with the cure.
absl::StatusOr<std::unique_ptr<v1::FreezeService::StubInterface>> ConnectRun(
    const RunTarget& target, absl::Duration timeout = absl::Seconds(5));

/// Whether a call failed since nobody answered it.
bool IsUnreachable(const absl::Status& status);

/// Connects, and returns the exit code of `command`; or says why it cannot.
int RunCommand(const RunTarget& target,
               const std::function<int(v1::FreezeService::StubInterface& stub)>& command);

/// A call with a deadline of `timeout`; the answer, or the service's refusal as a Status.
template <typename Request, typename Response>
absl::StatusOr<Response> CallRun(v1::FreezeService::StubInterface& stub,
                                 grpc::Status (v1::FreezeService::StubInterface::*method)(
                                     grpc::ClientContext*, const Request&, Response*),
                                 const Request& request);

}  // namespace smartpipe

#include "services/rpc/channel.h"
#include "services/rpc/status.h"

namespace smartpipe {

template <typename Request, typename Response>
absl::StatusOr<Response> CallRun(v1::FreezeService::StubInterface& stub,
                                 grpc::Status (v1::FreezeService::StubInterface::*method)(
                                     grpc::ClientContext*, const Request&, Response*),
                                 const Request& request) {
  grpc::ClientContext context;
  SetTimeout(context, absl::Seconds(10));
  Response response;
  const grpc::Status status = (stub.*method)(&context, request, &response);
  if (!status.ok()) return FromGrpcStatus(status);
  return response;
}

}  // namespace smartpipe
