#include "services/rpc/access.h"

#include <map>
#include <set>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "google/protobuf/descriptor.h"
#include "grpc/health/v1/health.pb.h"
#include "gtest/gtest.h"
#include "smartpipe/v1/freeze_service.pb.h"
#include "smartpipe/v1/parameter_service.pb.h"

namespace smartpipe {
namespace {

using testing::HasSubstr;

// Every rpc and who may call it, a letter each: service, worker, operator, viewer. Spelled out a
// second time on purpose.
const std::map<std::string, std::string>& Expected() {
  static const auto* const expected = new std::map<std::string, std::string>{
      {"/smartpipe.v1.FreezeService/Join", " w  "},
      {"/smartpipe.v1.FreezeService/AnnounceLayers", " w  "},
      {"/smartpipe.v1.FreezeService/ReportInterval", " w  "},
      {"/smartpipe.v1.FreezeService/ReportProgress", " w  "},
      {"/smartpipe.v1.FreezeService/ReportFault", " w  "},
      {"/smartpipe.v1.FreezeService/EndWorker", " w  "},
      {"/smartpipe.v1.FreezeService/SetKey", " w  "},
      {"/smartpipe.v1.FreezeService/GetKeys", " w  "},
      {"/smartpipe.v1.FreezeService/AddToKey", " w  "},
      {"/smartpipe.v1.FreezeService/CompareAndSetKey", " w  "},
      {"/smartpipe.v1.FreezeService/CheckKeys", " w  "},
      {"/smartpipe.v1.FreezeService/DeleteKey", " w  "},
      {"/smartpipe.v1.FreezeService/CountKeys", " w  "},
      {"/smartpipe.v1.FreezeService/GetRun", "swov"},
      {"/smartpipe.v1.FreezeService/ListWorkers", "s ov"},
      {"/smartpipe.v1.FreezeService/ListLayers", "s ov"},
      {"/smartpipe.v1.FreezeService/GetPlan", "s ov"},
      {"/smartpipe.v1.FreezeService/ListVerdicts", "s ov"},
      {"/smartpipe.v1.FreezeService/ListOrders", "s ov"},
      {"/smartpipe.v1.FreezeService/WatchRun", "s ov"},
      {"/smartpipe.v1.FreezeService/FreezeLayers", "  o "},
      {"/smartpipe.v1.FreezeService/UnfreezeLayers", "  o "},
      {"/smartpipe.v1.FreezeService/Rebalance", "  o "},
      {"/smartpipe.v1.FreezeService/SetPolicy", "  o "},
      {"/smartpipe.v1.FreezeService/Pause", "  o "},
      {"/smartpipe.v1.FreezeService/Resume", "  o "},
      {"/smartpipe.v1.FreezeService/Checkpoint", "  o "},
      {"/smartpipe.v1.FreezeService/DrainWorker", "  o "},
      {"/smartpipe.v1.FreezeService/Stop", "  o "},
      {"/smartpipe.v1.ParameterService/PutLayer", " w  "},
      {"/smartpipe.v1.ParameterService/GetLayer", "swov"},
      {"/smartpipe.v1.ParameterService/GetCheckpoint", "swov"},
      {"/smartpipe.v1.ParameterService/ListCheckpoints", "swov"},
      {"/smartpipe.v1.ParameterService/PinCheckpoint", "  o "},
      {"/smartpipe.v1.ParameterService/UnpinCheckpoint", "  o "},
      {"/smartpipe.v1.ParameterService/DeleteCheckpoint", " wo "},
      {"/smartpipe.v1.ParameterService/CollectGarbage", " wo "},
      {"/smartpipe.v1.ParameterService/GetUsage", "swov"},
      {"/grpc.health.v1.Health/Check", "swov"},
      {"/grpc.health.v1.Health/Watch", "swov"},
      {"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", "swov"},
  };
  return *expected;
}

Caller WithRoles(RoleSet roles) { return {.name = "alice", .roles = roles}; }

TEST(Access, EveryRpcAndRole) {
  std::set<std::string> in_table;
  for (const AccessRow& row : AccessTable()) {
    EXPECT_TRUE(in_table.insert(std::string(row.path)).second) << row.path << " is there twice";
    EXPECT_TRUE(Expected().contains(std::string(row.path))) << row.path;
  }
  for (const auto& [path, letters] : Expected()) {
    for (size_t i = 0; i < kRoles.size(); ++i) {
      EXPECT_EQ(CheckAccess(WithRoles({kRoles[i]}), path).ok(), letters.at(i) != ' ')
          << RoleName(kRoles[i]) << " " << path;
    }
    EXPECT_FALSE(CheckAccess(WithRoles({}), path).ok()) << path;
    EXPECT_TRUE(CheckAccess({.name = "local", .is_local = true}, path).ok()) << path;
  }
}

TEST(Access, EveryMethodOfOurServicesHasARow) {
  std::set<std::string> methods;
  for (const google::protobuf::FileDescriptor* file :
       {v1::GetRunRequest::descriptor()->file(), v1::GetUsageRequest::descriptor()->file(),
        grpc::health::v1::HealthCheckRequest::descriptor()->file()}) {
    for (int i = 0; i < file->service_count(); ++i) {
      const google::protobuf::ServiceDescriptor* service = file->service(i);
      for (int j = 0; j < service->method_count(); ++j) {
        methods.insert(absl::StrCat("/", service->full_name(), "/", service->method(j)->name()));
      }
    }
  }
  EXPECT_GT(methods.size(), 20u);
  for (const std::string& method : methods) {
    EXPECT_TRUE(Expected().contains(method)) << method << " has no row, so nobody may call it";
  }
  for (const auto& [path, roles] : Expected()) {
    if (!absl::StartsWith(path, "/smartpipe.")) continue;
    EXPECT_TRUE(methods.contains(std::string(path))) << path << " is no rpc";
  }
}

TEST(Access, WhatIsNotInTheTableIsRefusedToAllRoles) {
  const Caller all = WithRoles({Role::kService, Role::kWorker, Role::kOperator, Role::kViewer});
  for (const char* path :
       {"", "/", "/smartpipe.v1.FreezeService/Explode", "/smartpipe.v1.FreezeService/Join/",
        "smartpipe.v1.FreezeService/Join", "/smartpipe.v1.FreezeService/join"}) {
    const absl::Status status = CheckAccess(all, path);
    EXPECT_EQ(status.code(), absl::StatusCode::kPermissionDenied) << path;
    EXPECT_THAT(std::string(status.message()), HasSubstr("no role may")) << path;
  }
  EXPECT_TRUE(CheckAccess({.name = "local", .is_local = true}, "/any/thing").ok());
}

TEST(Access, SaysWhoWantedWhatAndWhoMay) {
  EXPECT_EQ(
      CheckAccess(WithRoles({Role::kWorker, Role::kViewer}), "/smartpipe.v1.FreezeService/Pause")
          .message(),
      "\"alice\" (role worker or viewer) may not call smartpipe.v1.FreezeService/Pause, "
      "which needs role operator; use a certificate of that role");
  EXPECT_EQ(CheckAccess(WithRoles({}), "/smartpipe.v1.FreezeService/GetPlan").message(),
            "\"alice\", whose certificate names no role, may not call "
            "smartpipe.v1.FreezeService/GetPlan, which needs role service or operator or viewer; "
            "use a certificate of that role");
  const absl::Status strange =
      CheckAccess({.name = std::string(1000, 'x') + "\n", .roles = {Role::kViewer}}, "/a\nb");
  EXPECT_LT(strange.message().size(), 300u);
  EXPECT_THAT(std::string(strange.message()), testing::Not(HasSubstr("\n")));
}

TEST(Roles, AreReadFromUris) {
  EXPECT_EQ(RoleUri(Role::kOperator), "urn:smartpipe:role:operator");
  EXPECT_EQ(RolesOf({"urn:smartpipe:role:operator", "https://example.org", "urn:smartpipe:role:"}),
            RoleSet({Role::kOperator}));
  for (const Role role : kRoles) EXPECT_EQ(RolesOf({RoleUri(role)}), RoleSet({role}));
  EXPECT_TRUE(RolesOf({}).empty());
  for (const char* uri : {"URN:smartpipe:role:operator", "urn:smartpipe:role:operator ",
                          "urn:smartpipe:role:operators", "urn:smartpipe:role:Operator",
                          "xurn:smartpipe:role:operator", "operator", ""}) {
    EXPECT_TRUE(RolesOf({uri}).empty()) << uri;
  }
}

}  // namespace
}  // namespace smartpipe
