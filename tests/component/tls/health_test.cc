// The port that tells health alone.
#include <memory>
#include <string>

#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "grpcpp/generic/generic_stub.h"
#include "gtest/gtest.h"
#include "services/rpc/channel.h"
#include "services/rpc/server.h"
#include "smartpipe/v1/freeze_service.grpc.pb.h"
#include "tests/testutil/certificates.h"

namespace smartpipe {
namespace {

using grpc::health::v1::Health;
using grpc::health::v1::HealthCheckResponse;
using testing::HasSubstr;

class HealthPort : public testing::Test {
 protected:
  void Start(const std::string& address) {
    RpcServerOptions options;
    options.tls = authority_.MakeService();
    options.health_listen_address = address;
    server_ = StartServer(options, {{"smartpipe.v1.FreezeService", &service_}}).value();
    channel_ = MakeChannel({.address = server_->health_address(), .keepalive = {}});
  }
  grpc::Status Check(const std::string& name, HealthCheckResponse& response) {
    grpc::ClientContext context;
    SetTimeout(context, absl::Seconds(10));
    grpc::health::v1::HealthCheckRequest request;
    request.set_service(name);
    return Health::NewStub(channel_)->Check(&context, request, &response);
  }

  testutil::TestAuthority authority_;
  v1::FreezeService::Service service_;  // every call is unimplemented
  std::unique_ptr<RpcServer> server_;
  std::shared_ptr<grpc::Channel> channel_;
};

TEST_F(HealthPort, TellsTheSameWithoutACertificate) {
  Start("127.0.0.1:0");
  HealthCheckResponse response;
  for (const char* name : {"", "smartpipe.v1.FreezeService"}) {
    const grpc::Status status = Check(name, response);
    ASSERT_TRUE(status.ok()) << status.error_message();
    EXPECT_EQ(response.status(), HealthCheckResponse::SERVING);
  }
  EXPECT_EQ(Check("other", response).error_code(), grpc::StatusCode::NOT_FOUND);
}

TEST_F(HealthPort, AWatcherHearsOfTheEnd) {
  Start("127.0.0.1:0");
  grpc::ClientContext context;
  SetTimeout(context, absl::Seconds(10));
  const auto stub = Health::NewStub(channel_);
  const auto watch = stub->Watch(&context, {});
  HealthCheckResponse response;
  ASSERT_TRUE(watch->Read(&response));
  EXPECT_EQ(response.status(), HealthCheckResponse::SERVING);
  server_->Shutdown(absl::ZeroDuration());
  while (watch->Read(&response)) EXPECT_EQ(response.status(), HealthCheckResponse::NOT_SERVING);
  EXPECT_EQ(Check("", response).error_code(), grpc::StatusCode::UNAVAILABLE);
}

TEST_F(HealthPort, HasNothingElse) {
  Start("127.0.0.1:0");
  const auto stub = v1::FreezeService::NewStub(channel_);
  grpc::ClientContext context;
  v1::GetRunResponse response;
  EXPECT_EQ(stub->GetRun(&context, {}, &response).error_code(), grpc::StatusCode::UNIMPLEMENTED);
  grpc::GenericStub generic(channel_);
  grpc::CompletionQueue queue;
  grpc::ClientContext reflection_context;
  auto call =
      generic.PrepareCall(&reflection_context,
                          "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", &queue);
  void* tag = nullptr;
  bool ok = false;
  call->StartCall(nullptr);
  ASSERT_TRUE(queue.Next(&tag, &ok));
  grpc::Status status;
  call->Finish(&status, nullptr);
  ASSERT_TRUE(queue.Next(&tag, &ok));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNIMPLEMENTED);
}

TEST_F(HealthPort, MayListenOnAnyAddress) {
  Start("0.0.0.0:0");
  EXPECT_THAT(server_->health_address(), HasSubstr("0.0.0.0:"));
  HealthCheckResponse response;
  EXPECT_TRUE(Check("", response).ok());
}

TEST_F(HealthPort, APortInUseIsNamedByItsFlag) {
  Start("127.0.0.1:0");
  RpcServerOptions options;
  options.health_listen_address = server_->health_address();
  EXPECT_THAT(StartServer(options, {}).status().ToString(),
              HasSubstr("address already in use; choose another --health-listen address"));
}

}  // namespace
}  // namespace smartpipe
