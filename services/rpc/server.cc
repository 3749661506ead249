#include "services/rpc/server.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "grpc/health/v1/health.pb.h"
#include "grpcpp/ext/proto_server_reflection_plugin.h"
#include "grpcpp/health_check_service_interface.h"
#include "services/base/limits.h"
#include "services/base/status_macros.h"
#include "services/rpc/address.h"
#include "services/rpc/quiet.h"

namespace smartpipe {
namespace {

void EnableHealthAndReflection() {
  static const bool once = [] {
    grpc::EnableDefaultHealthCheckService(true);
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
    // gRPC serves health without registering its descriptor; naming a message links ours in, so
    // that reflection can describe the service.
    return grpc::health::v1::HealthCheckRequest::descriptor() != nullptr;
  }();
  (void)once;
}

void Configure(grpc::ServerBuilder& builder, const KeepaliveOptions& keepalive) {
  builder.SetMaxReceiveMessageSize(limits::kGrpcMessageBytesMax);
  builder.SetMaxSendMessageSize(limits::kGrpcMessageBytesMax);
  // By default two servers may share a port and each gets half of the calls.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS,
                             static_cast<int>(absl::ToInt64Milliseconds(keepalive.period)));
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS,
                             static_cast<int>(absl::ToInt64Milliseconds(keepalive.timeout)));
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  // Without these the clients' pings count as abuse and close the connection.
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
                             static_cast<int>(absl::ToInt64Milliseconds(keepalive.period) / 2));
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PING_STRIKES, 0);
}

}  // namespace

RpcServer::~RpcServer() { Shutdown(absl::ZeroDuration()); }

std::shared_ptr<grpc::Channel> RpcServer::InProcessChannel() {
  return server_->InProcessChannel(grpc::ChannelArguments());
}

void RpcServer::Shutdown(absl::Duration grace) {
  if (server_ == nullptr) return;
  server_->GetHealthCheckService()->Shutdown();
  server_->Shutdown(absl::ToChronoTime(absl::Now() + grace));
  server_->Wait();
}

absl::StatusOr<std::unique_ptr<RpcServer>> StartServer(const RpcServerOptions& options,
                                                       const std::vector<NamedService>& services) {
  SP_ASSIGN_OR_RETURN(HostPort address, ParseHostPort(options.listen_address));
  if (!address.is_loopback() && !options.insecure) {
    return absl::FailedPreconditionError(
        absl::StrCat("refused to listen on ", options.listen_address,
                     ": connections are not encrypted yet, and that address can be "
                     "reached from other machines; listen on 127.0.0.1, or give --insecure on a "
                     "private network"));
  }
  QuietGrpcLog();
  EnableHealthAndReflection();
  grpc::ServerBuilder builder;
  Configure(builder, options.keepalive);
  int port = 0;
  builder.AddListeningPort(address.ToString(), grpc::InsecureServerCredentials(), &port);
  for (const NamedService& service : services) builder.RegisterService(service.service);
  std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (server == nullptr || port == 0) {
    // gRPC does not say why; the system does.
    const absl::Status why = ProbeListen(address);
    return absl::UnavailableError(
        absl::StrCat("cannot listen on ", address.ToString(), ": ",
                     why.ok() ? "gRPC could not start" : why.message(),
                     "; choose another --listen address, or port 0 for any free port"));
  }
  server->GetHealthCheckService()->SetServingStatus(true);
  for (const NamedService& service : services) {
    server->GetHealthCheckService()->SetServingStatus(service.name, true);
  }
  std::unique_ptr<RpcServer> result(new RpcServer);
  result->server_ = std::move(server);
  address.port = port;
  result->address_ = address.ToString();
  result->port_ = port;
  return result;
}

}  // namespace smartpipe
