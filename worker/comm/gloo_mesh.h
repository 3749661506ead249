// Connecting the ranks of a group over Gloo. The only file that includes ProcessGroupGloo's header
// is gloo_mesh.cc.
#pragma once

#include "absl/status/statusor.h"
#include "torch/csrc/distributed/c10d/Backend.hpp"
#include "worker/comm/transport.h"

namespace smartpipe {

/// Connects every rank with every other; returns when this rank's connections stand.
///
/// Between two ranks there are two connections, each with an I/O thread of its own at both ends;
/// c10d picks the one with the number `tag % 2`.  options.size >= 2.  Keys in options.store:
/// "transport/rank/<rank>", and Gloo's own
/// "<connection>/<rank>"; a second group over the same store needs another prefix.
/// Errors: DEADLINE_EXCEEDED naming the ranks that did not come within connect_timeout;
/// INVALID_ARGUMENT for a bind address that is not of this machine; UNAVAILABLE when ranks that
/// came cannot be connected (at most 8 s later); the store's errors, CANCELLED among them. Cost:
/// blocks; about 20 ms for 2 ranks, 150 ms for 8.  Threads: any.
absl::StatusOr<c10::intrusive_ptr<c10d::Backend>> ConnectGlooMesh(const TransportOptions& options);

}  // namespace smartpipe
