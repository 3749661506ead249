// The life of the parameter_service process.
#pragma once

#include <csignal>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "services/rpc/tls.h"

namespace smartpipe {

struct ParameterServeOptions {
  std::string listen = "127.0.0.1:50052";
  std::string dir;            // the layer store's folder; made if its parent is there
  int64_t quota_bytes = 0;    // 0 = no limit
  bool verify = true;         // read all contents at the start
  int ready_fd = -1;          // "PORT\n" is written to it when serving; -1 = none
  TlsFiles tls;               // none = plaintext
  bool insecure = false;      // plaintext on other addresses than loopback, too
  std::string health_listen;  // HOST:PORT for health alone; "" = none
  std::string until_run;      // HOST:PORT of a FreezeService: ends with its run; "" = for ever
  double absence_s = 300;     // without its answer for so long, the run counts as over
};

/// Serves until one of `stop_signals` (blocked in all threads) arrives or the run of until_run is
/// over; puts and gets that are going on then have 1 s to end, and are UNAVAILABLE to their callers
/// after it. A FreezeService that does not answer is waited for, since it may be started again, but
/// not for longer than absence_s: then the end of its run was missed, or its workers have given up
/// as well. When the run was over before, it serves for 10 s: somebody may wait until it is
/// healthy. Errors: why it could not start.
absl::Status ServeParameters(const ParameterServeOptions& options, const sigset_t& stop_signals);

}  // namespace smartpipe
