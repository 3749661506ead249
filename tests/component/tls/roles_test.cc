// What each role may do, against the real services over TLS.
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "grpcpp/generic/generic_stub.h"
#include "gtest/gtest.h"
#include "services/parameter_service/layer_store.h"
#include "services/parameter_service/parameter_service_impl.h"
#include "services/rpc/access.h"
#include "services/rpc/channel.h"
#include "services/rpc/server.h"
#include "services/rpc/status.h"
#include "smartpipe/v1/parameter_service.grpc.pb.h"
#include "tests/component/freeze_service/service_harness.h"
#include "tests/testutil/certificates.h"

namespace smartpipe {
namespace {

using testing::HasSubstr;
using testutil::TestAuthority;
using Stub = v1::FreezeService::Stub;

const TestAuthority& Authority() {
  static const auto* const authority = new TestAuthority;
  return *authority;
}
const TlsFiles& ServiceFiles() {
  static const auto* const files = new TlsFiles(Authority().MakeService());
  return *files;
}

class Roles : public testing::Test {
 protected:
  std::shared_ptr<grpc::Channel> ChannelOf(RoleSet roles, const std::string& name) {
    return harness_.Channel(Authority().Make({.name = name, .roles = roles, .hosts = {}}));
  }
  std::unique_ptr<Stub> StubOf(RoleSet roles, const std::string& name = "alice") {
    return v1::FreezeService::NewStub(ChannelOf(roles, name));
  }
  static grpc::StatusCode GetRun(Stub& stub) {
    v1::GetRunResponse response;
    return CallStub(stub, &Stub::GetRun, v1::GetRunRequest(), &response).error_code();
  }
  static grpc::Status StopNow(Stub& stub) {
    v1::StopRequest request;
    request.set_reason("a test");
    request.set_at_once(true);
    v1::StopResponse response;
    return CallStub(stub, &Stub::Stop, request, &response);
  }
  static grpc::Status SetKey(Stub& stub) {
    v1::SetKeyResponse response;
    return CallStub(stub, &Stub::SetKey, v1::SetKeyRequest(), &response);
  }
  static grpc::Status ListVerdicts(Stub& stub) {
    v1::ListVerdictsResponse response;
    return CallStub(stub, &Stub::ListVerdicts, v1::ListVerdictsRequest(), &response);
  }

  ServiceHarness harness_{{.tls = ServiceFiles()}};
};

TEST_F(Roles, EveryoneSeesTheRun) {
  for (const Role role : kRoles) EXPECT_EQ(GetRun(*StubOf({role})), grpc::StatusCode::OK);
}

TEST_F(Roles, AWorkerTrainsAndDoesNotOrder) {
  StartedRun run(ChannelOf({Role::kWorker}, "worker"));
  EXPECT_EQ(run.ReportAll().size(), 4u);
  const grpc::Status status = StopNow(run.w0.stub());
  EXPECT_EQ(status.error_code(), grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_EQ(status.error_message(),
            "\"worker\" (role worker) may not call smartpipe.v1.FreezeService/Stop, which needs "
            "role operator; use a certificate of that role");
  EXPECT_EQ(ListVerdicts(run.w0.stub()).error_code(), grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_EQ(harness_.GetRun().state(), v1::RUN_STATE_RUNNING);
}

TEST_F(Roles, AnOperatorOrdersAndDoesNotReport) {
  const auto stub = StubOf({Role::kOperator});
  EXPECT_EQ(SetKey(*stub).error_code(), grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_EQ(CallReport(*stub, v1::ReportIntervalRequest()).error_code(),
            grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_TRUE(ListVerdicts(*stub).ok());
  EXPECT_NE(StopNow(*stub).error_code(), grpc::StatusCode::PERMISSION_DENIED);
}

TEST_F(Roles, AViewerChangesNothing) {
  const auto stub = StubOf({Role::kViewer});
  EXPECT_TRUE(ListVerdicts(*stub).ok());
  EXPECT_EQ(StopNow(*stub).error_code(), grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_EQ(SetKey(*stub).error_code(), grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_EQ(harness_.GetRun().state(), v1::RUN_STATE_WAITING);
}

// The check comes before the first message of a stream.
TEST_F(Roles, AViewerDoesNotJoin) {
  FakeWorker worker(ChannelOf({Role::kViewer}, "viewer"), "w0");
  EXPECT_EQ(worker.EndOfStream().error_code(), grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_EQ(harness_.GetRun().connected_workers_size(), 0);
}

TEST_F(Roles, ACertificateMayCarrySeveral) {
  const auto stub = StubOf({Role::kWorker, Role::kOperator}, "both");
  EXPECT_NE(SetKey(*stub).error_code(), grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_NE(StopNow(*stub).error_code(), grpc::StatusCode::PERMISSION_DENIED);
}

TEST_F(Roles, ACertificateWithoutRoleMayNothing) {
  const auto stub = StubOf({}, "nobody");
  EXPECT_EQ(GetRun(*stub), grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_THAT(ListVerdicts(*stub).error_message(),
              HasSubstr("\"nobody\", whose certificate names no role"));
}

TEST_F(Roles, WhatTheTableDoesNotHaveIsRefused) {
  grpc::GenericStub stub(ChannelOf({Role::kOperator}, "operator"));
  grpc::CompletionQueue queue;
  grpc::ClientContext context;
  auto call = stub.PrepareUnaryCall(&context, "/smartpipe.v1.Other/Do", grpc::ByteBuffer(), &queue);
  call->StartCall();
  grpc::ByteBuffer response;
  grpc::Status status;
  call->Finish(&response, &status, nullptr);
  void* tag = nullptr;
  bool ok = false;
  ASSERT_TRUE(queue.Next(&tag, &ok));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_THAT(status.error_message(), HasSubstr("no role may"));
}

TEST_F(Roles, EveryoneSeesHealth) {
  for (const Role role : kRoles) {
    auto stub = grpc::health::v1::Health::NewStub(ChannelOf({role}, "probe"));
    grpc::ClientContext context;
    grpc::health::v1::HealthCheckResponse response;
    EXPECT_TRUE(stub->Check(&context, {}, &response).ok());
    grpc::ClientContext watch_context;
    auto watch = stub->Watch(&watch_context, {});
    EXPECT_TRUE(watch->Read(&response));
    watch_context.TryCancel();
  }
}

TEST(ParameterRoles, WorkersStoreAndReadersRead) {
  testutil::TempDir dir;
  ParameterServiceImpl service(LayerStore::Open({.folder = dir.File("store")}).value());
  RpcServerOptions options;
  options.tls = ServiceFiles();
  const auto server = StartServer(options, {{ParameterServiceImpl::kName, &service}}).value();
  const auto denied_to = [&](Role role) {
    const auto stub = v1::ParameterService::NewStub(MakeChannel(
        {.address = server->address(), .keepalive = {}, .tls = Authority().Make(role)}));
    std::string denied;
    const auto call = [&denied](const char* what, const auto& start) {
      grpc::ClientContext context;
      SetTimeout(context, absl::Seconds(10));
      const grpc::StatusCode code = start(context).error_code();
      EXPECT_NE(code, grpc::StatusCode::DEADLINE_EXCEEDED) << what;
      if (code == grpc::StatusCode::PERMISSION_DENIED) denied += what;
    };
    v1::ListCheckpointsResponse listed;
    v1::PutLayerResponse put;
    v1::PinCheckpointResponse pinned;
    v1::DeleteCheckpointResponse deleted;
    call("list ", [&](auto& context) { return stub->ListCheckpoints(&context, {}, &listed); });
    call("put ", [&](auto& context) {
      const auto stream = stub->PutLayer(&context, &put);
      stream->WritesDone();
      return stream->Finish();
    });
    call("pin ", [&](auto& context) { return stub->PinCheckpoint(&context, {}, &pinned); });
    call("delete ", [&](auto& context) { return stub->DeleteCheckpoint(&context, {}, &deleted); });
    return denied;
  };
  EXPECT_EQ(denied_to(Role::kService), "put pin delete ");
  EXPECT_EQ(denied_to(Role::kWorker), "pin ");
  EXPECT_EQ(denied_to(Role::kOperator), "put ");
  EXPECT_EQ(denied_to(Role::kViewer), "put pin delete ");
}

/// Says in its answer who called.
class Echo : public v1::FreezeService::Service {
  grpc::Status Stop(grpc::ServerContext* context, const v1::StopRequest*,
                    v1::StopResponse*) override {
    const Caller caller = CallerOf(*context);
    return ToGrpcStatus(absl::AbortedError(
        absl::StrCat(caller.name, ", ", RolesText(caller.roles), ", ", caller.is_local)));
  }
};

TEST(CallerOf, TellsNameAndRoles) {
  Echo service;
  const auto who = [&](const TlsFiles& server_files, const TlsFiles& files, bool in_process) {
    RpcServerOptions options;
    options.tls = server_files;
    const auto server = StartServer(options, {{"smartpipe.v1.FreezeService", &service}}).value();
    const auto stub = v1::FreezeService::NewStub(
        in_process ? server->InProcessChannel()
                   : MakeChannel({.address = server->address(), .keepalive = {}, .tls = files}));
    v1::StopResponse response;
    return CallStub(*stub, &Stub::Stop, v1::StopRequest(), &response).error_message();
  };
  const TlsFiles alice =
      Authority().Make({.name = "alice", .roles = {Role::kOperator, Role::kViewer}, .hosts = {}});
  EXPECT_EQ(who(ServiceFiles(), alice, false), "alice, operator or viewer, 0");
  EXPECT_EQ(who({}, {}, false), "local, none, 1");
  EXPECT_EQ(who(ServiceFiles(), {}, true), "local, none, 1");
}

}  // namespace
}  // namespace smartpipe
