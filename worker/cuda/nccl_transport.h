// Transport between GPUs over NCCL.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "worker/comm/transport.h"

namespace smartpipe {

/// Tensors of options.device ("cuda:<index>") go over NCCL, those in host memory over Gloo. Returns
/// when the Gloo group is complete; NCCL connects two ranks at their first transfer of a kind.
///
/// Errors: as MakeGlooTransport.  Threads: as Transport.  Decisions:
/// docs/decisions/0012-cuda-is-a-plug-in.md
absl::StatusOr<std::unique_ptr<Transport>> MakeNcclTransport(const TransportOptions& options);

}  // namespace smartpipe
