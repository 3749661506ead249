#include "services/parameter_service/serve.h"

#include <memory>
#include <utility>

#include "absl/time/time.h"
#include "services/base/status_macros.h"
#include "services/obs/log.h"
#include "services/parameter_service/layer_store.h"
#include "services/parameter_service/parameter_service_impl.h"
#include "services/rpc/process.h"
#include "services/rpc/server.h"

namespace smartpipe {
namespace {

// gRPC waits that long for idle clients, too; what is cut can be repeated.
constexpr absl::Duration kStopGrace = absl::Seconds(1);

}  // namespace

absl::Status ServeParameters(const ParameterServeOptions& options, const sigset_t& stop_signals) {
  SP_ASSIGN_OR_RETURN(auto store, LayerStore::Open({.folder = options.dir,
                                                    .quota_bytes = options.quota_bytes,
                                                    .verify = options.verify}));
  for (const std::string& line : store->recovered()) LogWarning(line);
  const StoreUsage usage = store->Usage();
  ParameterServiceImpl service(std::move(store));
  RpcServerOptions server_options;
  server_options.listen_address = options.listen;
  server_options.tls = options.tls;
  server_options.insecure = options.insecure;
  server_options.health_listen_address = options.health_listen;
  SP_ASSIGN_OR_RETURN(auto server,
                      StartServer(server_options, {{ParameterServiceImpl::kName, &service}}));
  LogInfo("serving ", options.dir, " on ", server->address(), ": ", usage.num_checkpoints,
          " checkpoints, ", usage.num_blobs, " contents, ", usage.stored_bytes, " bytes");
  AnnouncePort(options.ready_fd, server->port());
  int signal = 0;
  sigwait(&stop_signals, &signal);
  LogInfo("stopping");
  server->Shutdown(kStopGrace);
  return absl::OkStatus();
}

}  // namespace smartpipe
