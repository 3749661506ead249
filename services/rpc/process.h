// What the programs that serve have in common at their start.
#pragma once

#include <csignal>

namespace smartpipe {

/// Blocks SIGTERM and SIGINT, unless the parent ignores them, and returns them, for sigwait and its
/// like. Call it before any thread starts, so that no other thread receives them.
sigset_t BlockStopSignals();

/// Tells whoever started the program that it serves: writes "PORT\n" to `ready_fd` and closes it.
/// Does nothing when that is negative.
void AnnouncePort(int ready_fd, int port);

}  // namespace smartpipe
