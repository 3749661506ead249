// A gRPC server with everything our services share: TLS and roles, health, reflection, limits,
// keepalive, one listening port and one for probes.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "grpcpp/generic/async_generic_service.h"
#include "grpcpp/grpcpp.h"
#include "services/rpc/keepalive.h"
#include "services/rpc/tls.h"

namespace smartpipe {

struct RpcServerOptions {
  std::string listen_address = "127.0.0.1:0";  // port 0 = any free port
  /// With them every connection needs a certificate, and every call a role (access.h); without
  /// them only loopback is listened on, unencrypted and open to all on this machine.
  TlsFiles tls;
  /// Listens on any address without TLS, and says so loudly.
  bool insecure = false;
  /// HOST:PORT where health alone is told, without TLS, on any address: for probes that have no
  /// certificate. Empty = nowhere.
  std::string health_listen_address;
  KeepaliveOptions keepalive;
};

/// One service with its full name ("smartpipe.v1.FreezeService"), under which health is told.
struct NamedService {
  std::string name;
  grpc::Service* service = nullptr;  // must outlive the server
};

/// A running server.  Threads: all methods from any thread; Shutdown once.
class RpcServer {
 public:
  /// Ends by Shutdown with no grace if that has not been called.
  ~RpcServer();

  const std::string& address() const { return address_; }  // with the bound port
  int port() const { return port_; }
  /// Of health_listen_address, with the bound port; "" = there is none.
  const std::string& health_address() const { return health_address_; }
  /// A channel that reaches the services without a socket.
  std::shared_ptr<grpc::Channel> InProcessChannel();
  /// Health goes to NOT_SERVING; running calls get `grace` to end and are cancelled then. Blocks
  /// until all ended.
  void Shutdown(absl::Duration grace);

 private:
  friend absl::StatusOr<std::unique_ptr<RpcServer>> StartServer(const RpcServerOptions&,
                                                                const std::vector<NamedService>&);
  RpcServer() = default;
  void SetServing(const std::string& name);

  std::unique_ptr<grpc::CallbackGenericService> no_other_rpcs_;  // of health_server_
  std::unique_ptr<grpc::Server> health_server_;                  // null = none
  std::unique_ptr<grpc::Server> server_;
  std::string address_;
  std::string health_address_;
  int port_ = 0;
};

/// Starts serving; health says SERVING for "" and each name when this returns.
/// Errors: INVALID_ARGUMENT (malformed address, both tls and insecure), those of CheckTlsFiles,
/// FAILED_PRECONDITION (not loopback and neither tls nor insecure), UNAVAILABLE
/// ("cannot listen on 127.0.0.1:50051: address already in use; choose another --listen address").
absl::StatusOr<std::unique_ptr<RpcServer>> StartServer(const RpcServerOptions& options,
                                                       const std::vector<NamedService>& services);

}  // namespace smartpipe
