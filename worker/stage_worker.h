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

/// How a worker ends that has not failed by itself. kRunFailed: the run has, while this worker
/// belonged to it or before it came. kDone: all steps are done, or somebody stopped the run.
enum class WorkerEnd { kDone, kRunFailed };

/// Joins, builds and profiles the model, trains its stage, and leaves when the run is over, which
/// is OK; `end` says how. Errors: why this worker failed, which the service was told too, if it is
/// there.  Threads: becomes the compute thread.
absl::Status RunStageWorker(const StageWorkerOptions& options, WorkerEnd& end);

}  // namespace smartpipe
