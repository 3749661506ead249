// parameter_service: serves a layer store until a signal says stop or a run is over.
#include <cstdint>
#include <limits>
#include <string>

#include "CLI/CLI.hpp"
#include "services/base/version.h"
#include "services/obs/log.h"
#include "services/parameter_service/serve.h"
#include "services/rpc/exit_codes.h"
#include "services/rpc/process.h"
#include "services/rpc/tls_flags.h"

int main(int argc, char** argv) {
  smartpipe::ParameterServeOptions options;
  std::string log_level = "info";
  bool skip_verify = false;
  CLI::App app("The layer store: checkpoints, each layer's content once.", "parameter_service");
  app.set_version_flag("--version", "parameter_service " SMARTPIPE_VERSION);
  app.add_option("--listen", options.listen, "HOST:PORT to listen on; port 0 = any free port")
      ->capture_default_str();
  app.add_option("--dir", options.dir, "folder of the store; made if it is not there")->required();
  app.add_option("--quota-bytes", options.quota_bytes, "most bytes to keep; 0 = no limit")
      ->check(CLI::Range(int64_t{0}, std::numeric_limits<int64_t>::max()))
      ->capture_default_str();
  app.add_option("--ready-fd", options.ready_fd,
                 "write the port to this file descriptor when serving");
  app.add_flag("--skip-verify", skip_verify,
               "compare only sizes at the start, not the digests of all contents");
  app.add_option("--until-run", options.until_run,
                 "HOST:PORT of a FreezeService: end, with exit code 0, when its run is over");
  app.add_option("--absence-s", options.absence_s,
                 "take the run of --until-run for over when its service does not answer for so "
                 "many seconds")
      ->check(CLI::Range(1.0, 1e9))
      ->capture_default_str();
  smartpipe::AddTlsFlags(app, options.tls);
  app.add_flag("--insecure", options.insecure,
               "listen on other addresses than loopback without TLS, open to everyone");
  app.add_option("--health-listen", options.health_listen,
                 "HOST:PORT that tells health alone, without TLS, for probes");
  app.add_option("--log-level", log_level, "debug, info, warning or error")->capture_default_str();
  if (const auto code = smartpipe::ParseFlags<CLI::ParseError>(app, argc, argv)) return *code;
  options.verify = !skip_verify;
  const sigset_t stop_signals = smartpipe::BlockStopSignals();
  absl::Status status =
      smartpipe::InitLogging({.process = "parameter_service", .level = log_level, .file = ""});
  if (status.ok()) status = smartpipe::ServeParameters(options, stop_signals);
  if (!status.ok()) smartpipe::LogError(status.message());
  return status.ok() ? 0 : 1;
}
