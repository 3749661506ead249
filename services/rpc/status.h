// The one mapping between absl::Status and grpc::Status.
#pragma once

#include "absl/status/status.h"
#include "grpcpp/support/status.h"

namespace smartpipe {

/// Same code, same message; an ErrorReason goes into the details as google.rpc.ErrorInfo. A message
/// over limits::kReasonBytesMax is shortened with "..." at its end, since gRPC carries it in a
/// header of limited size.  Threads: pure.
grpc::Status ToGrpcStatus(const absl::Status& status);
/// Same code, same message, and the ErrorReason if it carries one.  Threads: pure.
absl::Status FromGrpcStatus(const grpc::Status& status);

}  // namespace smartpipe
