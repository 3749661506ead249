#include "freeze_service/rpc/serve.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "freeze_service/rpc/codec.h"
#include "freeze_service/rpc/freeze_service_impl.h"
#include "freeze_service/store/decision_store.h"
#include "freeze_service/store/restore.h"
#include "services/base/files.h"
#include "services/base/limits.h"
#include "services/base/status_macros.h"
#include "services/base/text.h"
#include "services/config/run_config.h"
#include "services/obs/log.h"
#include "services/rpc/address.h"
#include "services/rpc/process.h"
#include "services/rpc/server.h"

namespace smartpipe {
namespace {

/// Until a stop signal, the service's own failure, or linger_s after the end of the run.
absl::Status WaitForEnd(FreezeServiceImpl& service, const sigset_t& stop_signals, double linger_s) {
  absl::Time last = absl::InfiniteFuture();
  while (service.failure().ok() && absl::Now() < last) {
    const timespec period = {.tv_sec = 0, .tv_nsec = 100'000'000};
    if (sigtimedwait(&stop_signals, nullptr, &period) > 0) break;
    service.CheckMembers();
    if (service.ended()) last = std::min(last, absl::Now() + absl::Seconds(linger_s));
  }
  service.Leave();
  return service.failure();
}

// "" and "auto" name no step.
absl::StatusOr<std::optional<Step>> ParseResume(const std::string& resume) {
  if (resume.empty() || resume == "auto") return std::nullopt;
  int64_t step = 0;
  if (absl::SimpleAtoi(resume, &step) && step >= 0 && step <= limits::kStepsMax) return Step(step);
  return absl::InvalidArgumentError(
      absl::StrCat("--resume is \"", resume, "\"; give never, auto or the step of a checkpoint"));
}

// The name under which the run's checkpoints are kept. It stays when the folder is renamed or
// copied.
absl::StatusOr<std::string> RunIdOf(const std::filesystem::path& run_dir) {
  const std::string path = run_dir / "run_id";
  std::string id;
  if (std::ifstream file(path); file) std::getline(file, id);
  if (!id.empty() && id.size() <= 255 && IsUtf8(id)) return id;
  std::error_code error;
  id = std::filesystem::canonical(run_dir, error).filename().string();
  if (id.empty() || id.find('\n') != std::string::npos) id = "run";
  SP_RETURN_IF_ERROR(WriteFileAtomically(path, id + "\n"));
  return id;
}

}  // namespace

absl::Status Serve(const ServeOptions& options, const sigset_t& stop_signals) {
  const absl::StatusOr<std::string> toml = ReadSmallFile(options.config, limits::kConfigBytesMax);
  if (!toml.ok()) return Annotate(toml.status(), "--config");
  SP_ASSIGN_OR_RETURN(RunConfig config, ParseRunConfig(*toml, options.config, options.sets));
  std::filesystem::path run_dir = std::filesystem::absolute(options.run_dir);
  if (!run_dir.has_filename()) run_dir = run_dir.parent_path();  // "runs/a/" means "runs/a"
  if (!IsUtf8(run_dir.string())) {
    return absl::InvalidArgumentError("--run-dir is not UTF-8 text; give another folder");
  }
  if (!options.parameter_service.empty()) {
    SP_RETURN_IF_ERROR(
        Annotate(ParseHostPort(options.parameter_service).status(), "--parameter-service"));
  }
  SP_ASSIGN_OR_RETURN(FaultHook fault_hook, ParseFaultPoint(options.die_at));
  const RunSettings settings = {.config_toml = ToToml(config), .num_cores = options.num_cores};
  SP_ASSIGN_OR_RETURN(const std::optional<Step> resume_step, ParseResume(options.resume));
  if (std::error_code error;
      resume_step.has_value() && !std::filesystem::exists(run_dir / "decisions.db", error)) {
    return absl::FailedPreconditionError(
        absl::StrCat("--resume is ", resume_step->value(), ", but no run was recorded in ",
                     run_dir.string(), "; give the folder of the run, or --resume auto or never"));
  }
  SP_ASSIGN_OR_RETURN(const CoordinatorOptions now, MakeCoordinatorOptions(settings));
  SP_ASSIGN_OR_RETURN(OpenedDecisionStore opened,
                      OpenDecisionStore(run_dir, settings,
                                        options.resume.empty() ? Resuming::kNo : Resuming::kYes));
  if (!opened.repair.empty()) LogWarning(opened.repair);
  SP_ASSIGN_OR_RETURN(const CoordinatorOptions at_start,
                      MakeCoordinatorOptions(opened.first_settings));
  SP_ASSIGN_OR_RETURN(auto coordinator, RestoreCoordinator(at_start, *opened.store));
  const SystemClock clock;
  SP_ASSIGN_OR_RETURN(const std::string run_id, RunIdOf(run_dir));
  const FreezeServiceImpl::Options service_options{.run_id = run_id,
                                                   .config_toml = settings.config_toml,
                                                   .run_dir = run_dir,
                                                   .metrics_path = run_dir / "metrics.jsonl",
                                                   .costs_path = run_dir / "costs.json",
                                                   .batch_size = config.train.batch_size,
                                                   .num_cores = options.num_cores,
                                                   .parameter_service = options.parameter_service,
                                                   .fault_hook = std::move(fault_hook),
                                                   .resume = !options.resume.empty(),
                                                   .resumption = {now, resume_step}};
  SP_ASSIGN_OR_RETURN(auto service,
                      FreezeServiceImpl::Create(service_options, std::move(coordinator),
                                                std::move(opened.store), &clock));
  RpcServerOptions server_options;
  server_options.listen_address = options.listen;
  server_options.tls = options.tls;
  server_options.insecure = options.insecure;
  server_options.health_listen_address = options.health_listen;
  SP_ASSIGN_OR_RETURN(auto server,
                      StartServer(server_options, {{FreezeServiceImpl::kName, service.get()}}));
  LogInfo("serving run ", run_id, " on ", server->address());
  SP_RETURN_IF_ERROR(WriteFileAtomically(run_dir / "service_address", server->address() + "\n"));
  AnnouncePort(options.ready_fd, server->port());
  const absl::Status status = WaitForEnd(*service, stop_signals, options.linger_s);
  server->Shutdown(absl::Seconds(1));
  return status;
}

}  // namespace smartpipe
