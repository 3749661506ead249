// freeze_service: serves one run until it has ended or a signal says stop.
#include <string>

#include "CLI/CLI.hpp"
#include "freeze_service/rpc/serve.h"
#include "services/base/version.h"
#include "services/obs/log.h"
#include "services/rpc/exit_codes.h"
#include "services/rpc/process.h"
#include "services/rpc/tls_flags.h"

int main(int argc, char** argv) {
  smartpipe::ServeOptions options;
  std::string log_level = "info";
  CLI::App app("The FreezeService of one run: membership, plans, reports, decisions.",
               "freeze_service");
  app.set_version_flag("--version", "freeze_service " SMARTPIPE_VERSION);
  app.add_option("--listen", options.listen, "HOST:PORT to listen on; port 0 = any free port")
      ->capture_default_str();
  app.add_option("--config", options.config, "the run's TOML file")->required();
  app.add_option("--set", options.sets, "change a key of it: table.key=value; may be repeated")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false);
  app.add_option(
         "--run-dir", options.run_dir,
         "existing folder for the log of decisions and metrics.jsonl; a run that is there goes on")
      ->required();
  app.add_option("--ready-fd", options.ready_fd,
                 "write the port to this file descriptor when serving");
  app.add_option("--cores", options.num_cores,
                 "cores that all workers share, for the planner; 0 = each has its own")
      ->check(CLI::Range(0, 1 << 20))
      ->capture_default_str();
  app.add_option("--parameter-service", options.parameter_service,
                 "HOST:PORT of the parameter service, told to the workers; none = no checkpoints");
  app.add_option(
      "--resume", options.resume,
      "never; auto, or the step of a checkpoint: go on from there, with other workers and "
      "pipeline, rebalance and worker settings if wanted, also after the run's end");
  app.add_option("--linger-s", options.linger_s, "seconds to stay after the end of the run")
      ->check(CLI::Range(0.0, 86'400.0))
      ->capture_default_str();
  smartpipe::AddTlsFlags(app, options.tls);
  app.add_flag("--insecure", options.insecure,
               "listen on other addresses than loopback without TLS, open to everyone");
  app.add_option("--health-listen", options.health_listen,
                 "HOST:PORT that tells health alone, without TLS, for probes");
  app.add_option(
      "--die-at", options.die_at,
      "for tests: before_append:N, after_append:N or after_publish:N kills it at record N");
  app.add_option("--log-level", log_level, "debug, info, warning or error")->capture_default_str();
  if (const auto code = smartpipe::ParseFlags<CLI::ParseError>(app, argc, argv)) return *code;
  if (options.resume == "never") options.resume.clear();
  const sigset_t stop_signals = smartpipe::BlockStopSignals();
  absl::Status status =
      smartpipe::InitLogging({.process = "freeze_service", .level = log_level, .file = ""});
  if (status.ok()) status = smartpipe::Serve(options, stop_signals);
  if (!status.ok()) smartpipe::LogError(status.message());
  return status.ok() ? 0 : 1;
}
