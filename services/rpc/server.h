// A gRPC server with everything our services share: health, reflection, limits, keepalive, one
// listening port.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "grpcpp/grpcpp.h"
#include "services/rpc/keepalive.h"

namespace smartpipe {

struct RpcServerOptions {
  std::string listen_address = "127.0.0.1:0";  // port 0 = any free port
  /// Connections are neither encrypted nor authenticated yet, so only loopback is listened on
  /// unless this is set.
  bool insecure = false;
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
  /// A channel that reaches the services without a socket.
  std::shared_ptr<grpc::Channel> InProcessChannel();
  /// Health goes to NOT_SERVING; running calls get `grace` to end and are cancelled then. Blocks
  /// until all ended.
  void Shutdown(absl::Duration grace);

 private:
  friend absl::StatusOr<std::unique_ptr<RpcServer>> StartServer(const RpcServerOptions&,
                                                                const std::vector<NamedService>&);
  RpcServer() = default;

  std::unique_ptr<grpc::Server> server_;
  std::string address_;
  int port_ = 0;
};

/// Starts serving; health says SERVING for "" and each name when this returns.
/// Errors: INVALID_ARGUMENT (malformed address), FAILED_PRECONDITION (not loopback and not
/// insecure), UNAVAILABLE
/// ("cannot listen on 127.0.0.1:50051: address already in use; choose another --listen address").
absl::StatusOr<std::unique_ptr<RpcServer>> StartServer(const RpcServerOptions& options,
                                                       const std::vector<NamedService>& services);

}  // namespace smartpipe
