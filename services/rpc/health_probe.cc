// health_probe: asks a service's health port whether it serves, for container engines.
#include <iostream>
#include <string>

#include "CLI/CLI.hpp"
#include "absl/time/time.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "services/base/version.h"
#include "services/rpc/address.h"
#include "services/rpc/channel.h"
#include "services/rpc/exit_codes.h"
#include "services/rpc/status.h"

namespace smartpipe {
namespace {

using grpc::health::v1::Health;
using grpc::health::v1::HealthCheckResponse;

/// OK when whoever listens at `address` says within `timeout` that `service` ("" = all) is served.
/// Errors: FAILED_PRECONDITION (it says something else), why there was no answer.
absl::Status CheckHealth(const std::string& address, const std::string& service,
                         absl::Duration timeout) {
  const auto channel = MakeChannel({.address = address, .keepalive = {}});
  grpc::ClientContext context;
  context.set_wait_for_ready(false);
  SetTimeout(context, timeout);
  grpc::health::v1::HealthCheckRequest request;
  request.set_service(service);
  HealthCheckResponse response;
  const grpc::Status status = Health::NewStub(channel)->Check(&context, request, &response);
  if (!status.ok()) return FromGrpcStatus(status);
  if (response.status() == HealthCheckResponse::SERVING) return absl::OkStatus();
  return absl::FailedPreconditionError(HealthCheckResponse::ServingStatus_Name(response.status()));
}

}  // namespace
}  // namespace smartpipe

int main(int argc, char** argv) {
  std::string address, service;
  double timeout_s = 3;
  CLI::App app(
      "Asks a service whether it serves, at its port of --health-listen (gRPC health, no TLS).\n"
      "Exit code: 0 it serves, 1 it does not or does not answer, 2 wrong usage.",
      "health_probe");
  app.set_version_flag("--version", "health_probe " SMARTPIPE_VERSION);
  app.add_option("address", address, "HOST:PORT")->required();
  app.add_option("--service", service, "full name of one service; none = the whole server");
  app.add_option("--timeout-s", timeout_s, "seconds to wait for the answer")
      ->check(CLI::Range(0.001, 3600.0))
      ->capture_default_str();
  if (const auto code = smartpipe::ParseFlags<CLI::ParseError>(app, argc, argv)) return *code;
  if (const absl::Status status = smartpipe::ParseHostPort(address).status(); !status.ok()) {
    std::cerr << "health_probe: " << status.message() << std::endl;
    return smartpipe::kExitWrongUsage;
  }
  const absl::Status status = smartpipe::CheckHealth(address, service, absl::Seconds(timeout_s));
  std::cout << address << (status.ok() ? " serves" : " does not serve: ") << status.message()
            << std::endl;
  return status.ok() ? 0 : 1;
}
