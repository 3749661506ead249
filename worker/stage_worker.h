// One stage worker from joining to the end of the run.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "services/base/ids.h"
#include "services/rpc/tls.h"

namespace smartpipe {

struct StageWorkerOptions {
  std::string service_address;  // host:port of the FreezeService
  WorkerId worker;
  TlsFiles tls;  // none = plaintext
  // For the data connections: an address, host or network interface of this machine, or "auto", the
  // address from which it reaches the service.
  std::string bind_address = "127.0.0.1";
  int32_t device_index = -1;  // which GPU, modulo their number; < 0 = from the environment
};

/// Joins, builds and profiles the model, trains its stage, and leaves. Returns OK when this worker
/// has finished all steps; else why it ended, which the service was told too.  Threads: becomes the
/// compute thread.
absl::Status RunStageWorker(const StageWorkerOptions& options);

}  // namespace smartpipe
