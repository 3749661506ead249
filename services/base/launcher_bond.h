// What ties a child process to the launcher that started it.
#pragma once

#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace smartpipe {

/// From now on this process dies with its parent, which must be `launcher_pid`; 0 = no launcher,
/// nothing happens. So no orphan stays when a launcher dies, however it dies. Errors:
/// FAILED_PRECONDITION when the launcher has gone already.  Threads: call first thing in main.
inline absl::Status BindToLauncher(int64_t launcher_pid) {
  if (launcher_pid == 0) return absl::OkStatus();
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() == launcher_pid) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("the launcher (process ", launcher_pid, ") has gone"));
}

}  // namespace smartpipe
