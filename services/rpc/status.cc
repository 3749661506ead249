#include "services/rpc/status.h"

#include <optional>
#include <string>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "services/base/error_reason.h"
#include "services/base/limits.h"

namespace smartpipe {
namespace {

constexpr char kErrorDomain[] = "smartpipe";

}  // namespace

// absl::StatusCode and grpc::StatusCode are the same list of numbers; the unit test checks each of
// them.
grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  std::string message(status.message());
  if (message.size() > static_cast<size_t>(limits::kReasonBytesMax)) {
    message.resize(limits::kReasonBytesMax - 3);
    message += "...";
  }
  const auto code = static_cast<grpc::StatusCode>(status.raw_code());
  const std::optional<ErrorReason> reason = ReasonOf(status);
  if (!reason.has_value()) return grpc::Status(code, message);
  google::rpc::ErrorInfo info;
  info.set_reason(reason->reason);
  info.set_domain(kErrorDomain);
  for (const auto& [key, value] : reason->metadata) (*info.mutable_metadata())[key] = value;
  google::rpc::Status details;
  details.set_code(code);
  details.set_message(message);
  details.add_details()->PackFrom(info);
  return grpc::Status(code, message, details.SerializeAsString());
}

absl::Status FromGrpcStatus(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  const absl::Status plain(static_cast<absl::StatusCode>(status.error_code()),
                           status.error_message());
  google::rpc::Status details;
  if (!details.ParseFromString(status.error_details())) return plain;
  for (const google::protobuf::Any& any : details.details()) {
    google::rpc::ErrorInfo info;
    if (!any.UnpackTo(&info) || info.domain() != kErrorDomain) continue;
    return WithReason(plain, {info.reason(), {info.metadata().begin(), info.metadata().end()}});
  }
  return plain;
}

}  // namespace smartpipe
