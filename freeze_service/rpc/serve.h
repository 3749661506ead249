// The life of the freeze_service process: from a config file to the end of the run.
#pragma once

#include <csignal>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "services/rpc/tls.h"

namespace smartpipe {

struct ServeOptions {
  std::string listen = "127.0.0.1:50051";
  std::string config;             // the run's TOML file
  std::vector<std::string> sets;  // "table.key=value", applied after the file
  std::string run_dir;            // existing folder for the log of decisions and metrics.jsonl
  int ready_fd = -1;              // "PORT\n" is written to it when serving; -1 = none
  int num_cores = 0;              // that all workers share; 0 = each has its own
  std::string parameter_service;  // HOST:PORT for the workers' checkpoints; "" = none are taken
  std::string resume;         // "auto" or a step: go on also with a run that has ended; "" = do not
  double linger_s = 30;       // how long it answers after the end of the run
  TlsFiles tls;               // none = plaintext
  bool insecure = false;      // plaintext on other addresses than loopback, too
  std::string health_listen;  // HOST:PORT for health alone; "" = none
  std::string die_at;         // for tests: "after_append:7", see ParseFaultPoint; "" = never
};

/// Goes on with the run that run_dir holds, if it holds one. Serves until one of `stop_signals`
/// (blocked in all threads) arrives, after which the run goes on when it is served again, or
/// linger_s after the end of the run. Errors: why it could not
/// start, or why it had to stop by itself.
absl::Status Serve(const ServeOptions& options, const sigset_t& stop_signals);

}  // namespace smartpipe
