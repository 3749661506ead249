#include "services/rpc/status.h"

#include <string>

#include "gtest/gtest.h"
#include "services/base/limits.h"

namespace smartpipe {
namespace {

TEST(StatusMapping, KeepsEveryCodeAndMessage) {
  for (int code = 1; code <= 16; ++code) {
    const absl::Status status(static_cast<absl::StatusCode>(code), "what happened");
    const grpc::Status wire = ToGrpcStatus(status);
    EXPECT_EQ(static_cast<int>(wire.error_code()), code);
    EXPECT_EQ(wire.error_message(), "what happened");
    EXPECT_EQ(FromGrpcStatus(wire), status);
  }
}

TEST(StatusMapping, NamesMeanTheSame) {
  EXPECT_EQ(ToGrpcStatus(absl::FailedPreconditionError("")).error_code(),
            grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(ToGrpcStatus(absl::UnavailableError("")).error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(ToGrpcStatus(absl::DeadlineExceededError("")).error_code(),
            grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_EQ(ToGrpcStatus(absl::ResourceExhaustedError("")).error_code(),
            grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(ToGrpcStatus(absl::UnauthenticatedError("")).error_code(),
            grpc::StatusCode::UNAUTHENTICATED);
}

TEST(StatusMapping, OkStaysOk) {
  EXPECT_TRUE(ToGrpcStatus(absl::OkStatus()).ok());
  EXPECT_TRUE(FromGrpcStatus(grpc::Status::OK).ok());
}

TEST(StatusMapping, ALongMessageFitsTheHeader) {
  const grpc::Status wire = ToGrpcStatus(absl::InternalError(std::string(100'000, 'x')));
  EXPECT_EQ(wire.error_message().size(), static_cast<size_t>(limits::kReasonBytesMax));
  EXPECT_TRUE(wire.error_message().ends_with("x..."));
}

}  // namespace
}  // namespace smartpipe
