#include "services/rpc/process.h"

#include <unistd.h>

#include <initializer_list>

#include <cstdio>

namespace smartpipe {

sigset_t BlockStopSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : {SIGTERM, SIGINT}) {
    // One that the parent has set to be ignored would be delivered all the same once it is blocked.
    struct sigaction action;
    if (sigaction(signal, nullptr, &action) == 0 && action.sa_handler == SIG_IGN) continue;
    sigaddset(&signals, signal);
  }
  sigprocmask(SIG_BLOCK, &signals, nullptr);
  return signals;
}

void AnnouncePort(int ready_fd, int port) {
  if (ready_fd < 0) return;
  dprintf(ready_fd, "%d\n", port);
  close(ready_fd);
}

}  // namespace smartpipe
