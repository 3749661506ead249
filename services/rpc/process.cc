#include "services/rpc/process.h"

#include <unistd.h>

#include <cstdio>

namespace smartpipe {

sigset_t BlockStopSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  sigprocmask(SIG_BLOCK, &signals, nullptr);
  return signals;
}

void AnnouncePort(int ready_fd, int port) {
  if (ready_fd < 0) return;
  dprintf(ready_fd, "%d\n", port);
  close(ready_fd);
}

}  // namespace smartpipe
