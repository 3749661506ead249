#include "services/parameter_service/serve.h"

#include <ctime>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "services/base/status_macros.h"
#include "services/obs/log.h"
#include "services/parameter_service/layer_store.h"
#include "services/parameter_service/parameter_service_impl.h"
#include "services/rpc/address.h"
#include "services/rpc/channel.h"
#include "services/rpc/process.h"
#include "services/rpc/run_state.h"
#include "services/rpc/server.h"
#include "smartpipe/v1/freeze_service.grpc.pb.h"

namespace smartpipe {
namespace {

// gRPC waits that long for idle clients, too; what is cut can be repeated.
constexpr absl::Duration kStopGrace = absl::Seconds(1);
constexpr absl::Duration kRunPeriod = absl::Seconds(1);

// A run may be over before this service begins; whoever waits for it to be healthy must see it.
constexpr absl::Duration kLeastStay = absl::Seconds(10);

// Services of a cluster come and go in any order; only what lasts is worth a word.
constexpr absl::Duration kRunAbsence = absl::Seconds(30);

/// Asks a FreezeService whether its run is over.
class RunWatch {
 public:
  RunWatch(const std::string& address, absl::Duration absence, const TlsFiles& tls)
      : address_(address),
        absence_(absence),
        stub_(v1::FreezeService::NewStub(
            MakeChannel({.address = address, .keepalive = {}, .tls = tls}))) {}

  /// Blocks for at most kRunPeriod. Says once why there is no answer: a refusal at once, an absence
  /// when it lasts; a service that is absent for too long has no run any more.
  bool IsOver() {
    if (leave_.has_value()) return absl::Now() >= *leave_;
    grpc::ClientContext context;
    SetTimeout(context, kRunPeriod);
    v1::GetRunResponse response;
    const grpc::Status status = stub_->GetRun(&context, v1::GetRunRequest(), &response);
    const absl::Time now = absl::Now();
    if (!status.ok()) {
      const bool is_absent = status.error_code() == grpc::StatusCode::UNAVAILABLE ||
                             status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED;
      if (!is_absent) heard_ = now;
      if (now - heard_ >= absence_) {
        LogWarning("the freeze service at ", address_, " has not answered for ",
                   absl::FormatDuration(absence_), " (", status.error_message(),
                   "): its run is taken for over");
        return true;
      }
      if (!told_ && (!is_absent || now - heard_ >= kRunAbsence)) {
        told_ = true;
        LogWarning("cannot ask the freeze service at ", address_,
                   " whether its run is over: ", status.error_message(),
                   "; serving on, and asking again every ", absl::FormatDuration(kRunPeriod),
                   is_absent ? absl::StrCat(", for up to ", absl::FormatDuration(absence_)) : "");
      }
      return false;
    }
    heard_ = now;
    told_ = false;
    if (!smartpipe::IsOver(response.run())) {
      was_open_ = true;
      return false;
    }
    LogInfo("the run of ", address_, " is over: ", response.run().message());
    leave_ = was_open_ ? now : began_ + kLeastStay;
    return now >= *leave_;
  }

 private:
  const std::string address_;
  const absl::Duration absence_;
  const std::unique_ptr<v1::FreezeService::Stub> stub_;
  const absl::Time began_ = absl::Now();
  absl::Time heard_ = began_;
  bool was_open_ = false;
  std::optional<absl::Time> leave_;  // once the run is over
  bool told_ = false;                // why there is no answer
};

void WaitForEnd(const ParameterServeOptions& options, const sigset_t& stop_signals) {
  if (options.until_run.empty()) {
    int signal = 0;
    sigwait(&stop_signals, &signal);
    return;
  }
  RunWatch run(options.until_run, absl::Seconds(options.absence_s), options.tls);
  const timespec period = absl::ToTimespec(kRunPeriod);
  while (sigtimedwait(&stop_signals, nullptr, &period) <= 0 && !run.IsOver()) {
  }
}

}  // namespace

absl::Status ServeParameters(const ParameterServeOptions& options, const sigset_t& stop_signals) {
  if (!options.until_run.empty()) {
    SP_RETURN_IF_ERROR(Annotate(ParseHostPort(options.until_run).status(), "--until-run"));
  }
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
  WaitForEnd(options, stop_signals);
  LogInfo("stopping");
  server->Shutdown(kStopGrace);
  return absl::OkStatus();
}

}  // namespace smartpipe
