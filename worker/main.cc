// stage_worker: joins a run and trains one stage of it.
#include <net/if.h>

#include <iostream>
#include <string>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "absl/time/clock.h"
#include "services/base/version.h"
#include "services/obs/log.h"
#include "services/rpc/address.h"
#include "services/rpc/exit_codes.h"
#include "services/rpc/tls_flags.h"
#include "worker/devices_main.h"
#include "worker/engine/compute_settings.h"
#include "worker/stage_worker.h"
#include "worker/weights_main.h"

namespace {

// Before it joins: later its mistake would be the run's. No wrong usage, as a network may come yet.
absl::Status CheckBind(const std::string& address) {
  if (address == "auto" || if_nametoindex(address.c_str()) != 0) return absl::OkStatus();
  const absl::Status status = smartpipe::ProbeListen({.host = address, .port = 0});
  if (status.ok()) return status;
  return absl::UnavailableError("--bind: \"" + address +
                                "\" is neither an address nor a network interface of this "
                                "machine: " +
                                std::string(status.message()));
}

}  // namespace

int main(int argc, char** argv) {
  smartpipe::SetUpEnvironment();
  if (argc > 1 && smartpipe::IsWeightsJob(argv[1])) return smartpipe::WeightsMain(argc, argv);
  if (argc > 1 && smartpipe::IsDevicesJob(argv[1])) return smartpipe::DevicesMain(argc, argv);
  smartpipe::StageWorkerOptions options;
  std::string worker_id, log_level = "info";
  int failed_run_code = smartpipe::kExitRunFailed;
  CLI::App app(
      "One stage worker: joins the run of a FreezeService and trains the stage that it is given.\n"
      "Exit code: 0 all steps are done or the run was stopped, 1 this worker failed,\n"
      "2 wrong usage, 3 the run has failed.\n"
      "`stage_worker export` and `stage_worker eval` work on stored weights instead;\n"
      "`stage_worker devices` lists the GPUs that a worker could use.",
      "stage_worker");
  app.set_version_flag("--version", "stage_worker " SMARTPIPE_VERSION);
  app.add_option("--service", options.service_address, "HOST:PORT of the FreezeService")
      ->required();
  app.add_option("--worker-id", worker_id,
                 "stable name of this worker, [a-z0-9-]{1,63}; none = this machine's host name "
                 "without its domain");
  app.add_option("--bind", options.bind_address,
                 "where tensors from and to other workers pass: an address, host name or network "
                 "interface of this machine; auto = the address from which it reaches --service")
      ->capture_default_str();
  app.add_option(
         "--device-index", options.device_index,
         "GPU of this worker, modulo their number, if the run asks for worker.device = cuda\n"
         "[LOCAL_RANK, SLURM_LOCALID, OMPI_COMM_WORLD_LOCAL_RANK or MPI_LOCALRANKID, else 0]")
      ->check(CLI::Range(0, 1 << 20));
  app.add_option("--failed-run-code", failed_run_code,
                 "exit code when the run has failed; 0 where each other code is a reason to start "
                 "the worker again")
      ->check(CLI::Range(0, 125))
      ->capture_default_str();
  smartpipe::AddTlsFlags(app, options.tls);
  app.add_option("--log-level", log_level, "debug, info, warning or error")->capture_default_str();
  if (const auto code = smartpipe::ParseFlags<CLI::ParseError>(app, argc, argv)) return *code;
  if (worker_id.empty()) worker_id = smartpipe::ShortHostName();
  std::string mistake;
  if (const absl::Status status = smartpipe::ParseHostPort(options.service_address).status();
      !status.ok()) {
    mistake = "--service: " + std::string(status.message());
  } else if (!smartpipe::IsWorkerId(worker_id)) {
    mistake = "--worker-id must be 1 to 63 of a-z, 0-9 and -, not \"" + worker_id + "\"";
  }
  if (!mistake.empty()) {
    std::cerr << "stage_worker: " << mistake << std::endl;
    return smartpipe::kExitWrongUsage;
  }
  options.worker = smartpipe::WorkerId(worker_id);
  absl::Status status = smartpipe::InitLogging(
      {.process = "stage_worker " + worker_id, .level = log_level, .file = ""});
  if (status.ok()) status = smartpipe::CheckTlsFiles(options.tls, absl::Now());
  if (status.ok()) status = CheckBind(options.bind_address);
  smartpipe::WorkerEnd end = smartpipe::WorkerEnd::kDone;
  if (status.ok()) status = smartpipe::RunStageWorker(options, end);
  if (!status.ok()) smartpipe::LogError(status.message());
  if (!status.ok()) return 1;
  return end == smartpipe::WorkerEnd::kRunFailed ? failed_run_code : 0;
}
