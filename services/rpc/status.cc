#include "services/rpc/status.h"

#include <string>

#include "services/base/limits.h"

namespace smartpipe {

// absl::StatusCode and grpc::StatusCode are the same list of numbers; the unit test checks each of
// them.
grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  std::string message(status.message());
  if (message.size() > static_cast<size_t>(limits::kReasonBytesMax)) {
    message.resize(limits::kReasonBytesMax - 3);
    message += "...";
  }
  return grpc::Status(static_cast<grpc::StatusCode>(status.raw_code()), message);
}

absl::Status FromGrpcStatus(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
}

}  // namespace smartpipe
