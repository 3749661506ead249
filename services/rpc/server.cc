#include "services/rpc/server.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "grpc/health/v1/health.pb.h"
#include "grpcpp/ext/proto_server_reflection_plugin.h"
#include "grpcpp/health_check_service_interface.h"
#include "services/base/limits.h"
#include "services/base/status_macros.h"
#include "services/obs/log.h"
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
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, limits::kCallsPerConnectionMax);
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

/// Leaves out what EnableHealthAndReflection adds to every server but health.
class NoReflection : public grpc::ServerBuilderOption {
 public:
  void UpdateArguments(grpc::ChannelArguments* /*arguments*/) override {}
  void UpdatePlugins(std::vector<std::unique_ptr<grpc::ServerBuilderPlugin>>* plugins) override {
    plugins->clear();
  }
};

absl::Status CheckProtection(const RpcServerOptions& options, const HostPort& address) {
  if (!options.tls.empty() && options.insecure) {
    return absl::InvalidArgumentError(
        "--insecure and TLS files exclude each other; give one of the two");
  }
  if (!options.tls.empty()) return CheckTlsFiles(options.tls, absl::Now());
  if (address.is_loopback()) return absl::OkStatus();
  if (!options.insecure) {
    return absl::FailedPreconditionError(absl::StrCat(
        "refused to listen on ", options.listen_address,
        ": that address can be reached from other machines, and there is no certificate to protect "
        "it; give --tls-ca, --tls-cert and --tls-key (`smartpipe certs` makes them), listen on "
        "127.0.0.1, or give --insecure on a network where you trust everyone"));
  }
  LogWarning("INSECURE: ", options.listen_address,
             " is open to everyone who can reach it, unencrypted: whoever does can read, change "
             "and stop the run (--insecure)");
  return absl::OkStatus();
}

/// Builds and starts; `port` becomes the bound one.
absl::StatusOr<std::unique_ptr<grpc::Server>> Listen(
    grpc::ServerBuilder& builder, HostPort& address,
    std::shared_ptr<grpc::ServerCredentials> credentials, absl::string_view flag) {
  int port = 0;
  builder.AddListeningPort(address.ToString(), std::move(credentials), &port);
  std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (server == nullptr || port == 0) {
    // gRPC does not say why; the system does.
    const absl::Status why = ProbeListen(address);
    return absl::UnavailableError(absl::StrCat("cannot listen on ", address.ToString(), ": ",
                                               why.ok() ? "gRPC could not start" : why.message(),
                                               "; choose another ", flag,
                                               " address, or port 0 for any free port"));
  }
  address.port = port;
  return server;
}

}  // namespace

RpcServer::~RpcServer() { Shutdown(absl::ZeroDuration()); }

std::shared_ptr<grpc::Channel> RpcServer::InProcessChannel() {
  return server_->InProcessChannel(grpc::ChannelArguments());
}

void RpcServer::Shutdown(absl::Duration grace) {
  if (server_ == nullptr) return;
  for (grpc::Server* server : {server_.get(), health_server_.get()}) {
    if (server != nullptr) server->GetHealthCheckService()->Shutdown();
  }
  server_->Shutdown(absl::ToChronoTime(absl::Now() + grace));
  server_->Wait();
  if (health_server_ == nullptr) return;
  health_server_->Shutdown(absl::ToChronoTime(absl::Now()));
  health_server_->Wait();
}

void RpcServer::SetServing(const std::string& name) {
  for (grpc::Server* server : {server_.get(), health_server_.get()}) {
    if (server != nullptr) server->GetHealthCheckService()->SetServingStatus(name, true);
  }
}

absl::StatusOr<std::unique_ptr<RpcServer>> StartServer(const RpcServerOptions& options,
                                                       const std::vector<NamedService>& services) {
  SP_ASSIGN_OR_RETURN(HostPort address, ParseHostPort(options.listen_address));
  SP_RETURN_IF_ERROR(CheckProtection(options, address));
  QuietGrpcLog();
  LookAfterConnections();
  EnableHealthAndReflection();
  std::unique_ptr<RpcServer> result(new RpcServer);
  if (!options.health_listen_address.empty()) {
    SP_ASSIGN_OR_RETURN(HostPort health_address, ParseHostPort(options.health_listen_address));
    grpc::ServerBuilder builder;
    Configure(builder, options.keepalive);
    builder.SetOption(std::make_unique<NoReflection>());
    // gRPC serves health only beside another service; this one has no rpcs.
    result->no_other_rpcs_ = std::make_unique<grpc::CallbackGenericService>();
    builder.RegisterCallbackGenericService(result->no_other_rpcs_.get());
    SP_ASSIGN_OR_RETURN(
        result->health_server_,
        Listen(builder, health_address, grpc::InsecureServerCredentials(), "--health-listen"));
    result->health_address_ = health_address.ToString();
    LogInfo("telling health on ", result->health_address_);
  }
  grpc::ServerBuilder builder;
  Configure(builder, options.keepalive);
  for (const NamedService& service : services) builder.RegisterService(service.service);
  SP_ASSIGN_OR_RETURN(result->server_,
                      Listen(builder, address,
                             options.tls.empty() ? grpc::InsecureServerCredentials()
                                                 : MakeServerCredentials(options.tls),
                             "--listen"));
  result->SetServing("");
  for (const NamedService& service : services) result->SetServing(service.name);
  result->address_ = address.ToString();
  result->port_ = address.port;
  return result;
}

}  // namespace smartpipe
