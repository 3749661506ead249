#include "services/rpc/server.h"

#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "gtest/gtest.h"
#include "services/rpc/channel.h"
#include "services/rpc/status.h"
#include "smartpipe/v1/freeze_service.grpc.pb.h"

namespace smartpipe {
namespace {

using testing::HasSubstr;

absl::Status StartError(const std::string& address) {
  RpcServerOptions options;
  options.listen_address = address;
  return StartServer(options, {}).status();
}

TEST(StartServer, TellsThatAPortIsInUse) {
  absl::StatusOr<std::unique_ptr<RpcServer>> first = StartServer({}, {});
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_GT((*first)->port(), 0);
  const absl::Status second = StartError((*first)->address());
  EXPECT_EQ(second.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(second.message()),
              HasSubstr(absl::StrCat("cannot listen on 127.0.0.1:", (*first)->port(),
                                     ": address already in use; choose another")));
}

TEST(StartServer, ListensOnLoopbackOnlyUnlessToldOtherwise) {
  const absl::Status refused = StartError("0.0.0.0:0");
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("give --tls-ca, --tls-cert and --tls-key"));
  RpcServerOptions options;
  options.listen_address = "0.0.0.0:0";
  options.insecure = true;
  EXPECT_TRUE(StartServer(options, {}).ok());
}

TEST(StartServer, RefusesAMalformedAddressAndAnUnknownHost) {
  EXPECT_EQ(StartError("here").code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(StartError("127.0.0.1:99999").code(), absl::StatusCode::kInvalidArgument);
}

TEST(StartServer, IsHealthyUntilShutdown) {
  v1::FreezeService::Service service;  // every call is unimplemented
  absl::StatusOr<std::unique_ptr<RpcServer>> server =
      StartServer({}, {{"smartpipe.v1.FreezeService", &service}});
  ASSERT_TRUE(server.ok()) << server.status();
  auto stub = grpc::health::v1::Health::NewStub(
      MakeChannel({.address = (*server)->address(), .keepalive = {}}));
  for (const char* name : {"", "smartpipe.v1.FreezeService"}) {
    grpc::ClientContext context;
    grpc::health::v1::HealthCheckRequest request;
    request.set_service(name);
    grpc::health::v1::HealthCheckResponse response;
    const grpc::Status status = stub->Check(&context, request, &response);
    ASSERT_TRUE(status.ok()) << status.error_message();
    EXPECT_EQ(response.status(), grpc::health::v1::HealthCheckResponse::SERVING) << name;
  }
  (*server)->Shutdown(absl::ZeroDuration());
  grpc::ClientContext context;
  grpc::health::v1::HealthCheckResponse response;
  EXPECT_EQ(stub->Check(&context, {}, &response).error_code(), grpc::StatusCode::UNAVAILABLE);
}

TEST(StartServer, RefusesAMessageOverTheLimit) {
  v1::FreezeService::Service service;
  absl::StatusOr<std::unique_ptr<RpcServer>> server =
      StartServer({}, {{"smartpipe.v1.FreezeService", &service}});
  ASSERT_TRUE(server.ok()) << server.status();
  // A channel without our own limit on the sending side.
  auto stub = v1::FreezeService::NewStub(
      grpc::CreateChannel((*server)->address(), grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  v1::SetKeyRequest request;
  request.set_value(std::string(5 << 20, 'x'));
  v1::SetKeyResponse response;
  EXPECT_EQ(stub->SetKey(&context, request, &response).error_code(),
            grpc::StatusCode::RESOURCE_EXHAUSTED);
}

TEST(Channel, SaysThatNobodyAnswers) {
  std::string address;
  {
    absl::StatusOr<std::unique_ptr<RpcServer>> server = StartServer({}, {});
    ASSERT_TRUE(server.ok());
    address = (*server)->address();
  }
  const absl::Status status = WaitConnected(*MakeChannel({.address = address, .keepalive = {}}),
                                            address, absl::Milliseconds(300));
  EXPECT_EQ(status,
            absl::UnavailableError(absl::StrCat(
                "nobody answers at ", address,
                " within 300ms, or whoever does expects TLS (--tls-ca, --tls-cert, --tls-key)")));
}

}  // namespace
}  // namespace smartpipe
