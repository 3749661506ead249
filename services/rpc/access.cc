#include "services/rpc/access.h"

#include <algorithm>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "services/rpc/refusals.h"
#include "services/rpc/status.h"

namespace smartpipe {
namespace {

constexpr RoleSet kEverybody = {Role::kService, Role::kWorker, Role::kOperator, Role::kViewer};
constexpr RoleSet kReaders = {Role::kService, Role::kOperator, Role::kViewer};
constexpr RoleSet kWorkers = {Role::kWorker};
constexpr RoleSet kOperators = {Role::kOperator};
constexpr RoleSet kWorkersAndReaders = kEverybody;
constexpr RoleSet kWorkersAndOperators = {Role::kWorker, Role::kOperator};

constexpr AccessRow kAccessTable[] = {
    {"/smartpipe.v1.FreezeService/Join", kWorkers},
    {"/smartpipe.v1.FreezeService/AnnounceLayers", kWorkers},
    {"/smartpipe.v1.FreezeService/ReportInterval", kWorkers},
    {"/smartpipe.v1.FreezeService/ReportProgress", kWorkers},
    {"/smartpipe.v1.FreezeService/ReportFault", kWorkers},
    {"/smartpipe.v1.FreezeService/EndWorker", kWorkers},
    {"/smartpipe.v1.FreezeService/SetKey", kWorkers},
    {"/smartpipe.v1.FreezeService/GetKeys", kWorkers},
    {"/smartpipe.v1.FreezeService/AddToKey", kWorkers},
    {"/smartpipe.v1.FreezeService/CompareAndSetKey", kWorkers},
    {"/smartpipe.v1.FreezeService/CheckKeys", kWorkers},
    {"/smartpipe.v1.FreezeService/DeleteKey", kWorkers},
    {"/smartpipe.v1.FreezeService/CountKeys", kWorkers},

    {"/smartpipe.v1.FreezeService/GetRun", kWorkersAndReaders},
    {"/smartpipe.v1.FreezeService/ListWorkers", kReaders},
    {"/smartpipe.v1.FreezeService/ListLayers", kReaders},
    {"/smartpipe.v1.FreezeService/GetPlan", kReaders},
    {"/smartpipe.v1.FreezeService/ListVerdicts", kReaders},
    {"/smartpipe.v1.FreezeService/ListOrders", kReaders},
    {"/smartpipe.v1.FreezeService/WatchRun", kReaders},

    {"/smartpipe.v1.FreezeService/FreezeLayers", kOperators},
    {"/smartpipe.v1.FreezeService/UnfreezeLayers", kOperators},
    {"/smartpipe.v1.FreezeService/Rebalance", kOperators},
    {"/smartpipe.v1.FreezeService/SetPolicy", kOperators},
    {"/smartpipe.v1.FreezeService/Pause", kOperators},
    {"/smartpipe.v1.FreezeService/Resume", kOperators},
    {"/smartpipe.v1.FreezeService/Checkpoint", kOperators},
    {"/smartpipe.v1.FreezeService/DrainWorker", kOperators},
    {"/smartpipe.v1.FreezeService/Stop", kOperators},

    // Workers delete old checkpoints, and the bytes of those with them; a pin, which keeps a
    // checkpoint from that, is the operator's.
    {"/smartpipe.v1.ParameterService/PutLayer", kWorkers},
    {"/smartpipe.v1.ParameterService/GetLayer", kWorkersAndReaders},
    {"/smartpipe.v1.ParameterService/GetCheckpoint", kWorkersAndReaders},
    {"/smartpipe.v1.ParameterService/ListCheckpoints", kWorkersAndReaders},
    {"/smartpipe.v1.ParameterService/PinCheckpoint", kOperators},
    {"/smartpipe.v1.ParameterService/UnpinCheckpoint", kOperators},
    {"/smartpipe.v1.ParameterService/DeleteCheckpoint", kWorkersAndOperators},
    {"/smartpipe.v1.ParameterService/CollectGarbage", kWorkersAndOperators},
    {"/smartpipe.v1.ParameterService/GetUsage", kWorkersAndReaders},

    {"/grpc.health.v1.Health/Check", kEverybody},
    {"/grpc.health.v1.Health/Watch", kEverybody},
    {"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", kEverybody},
};

constexpr size_t kShownBytesMax = 100;

// A client's text, harmless and short in a message.
std::string Shown(absl::string_view text) {
  return absl::StrCat("\"", absl::CEscape(text.substr(0, kShownBytesMax)), "\"");
}

std::vector<std::string> Values(const grpc::AuthContext& connection, const char* name) {
  std::vector<std::string> values;
  for (const grpc::string_ref& value : connection.FindPropertyValues(name)) {
    values.emplace_back(value.data(), value.size());
  }
  return values;
}

class AccessCheck : public grpc::AuthMetadataProcessor {
 public:
  bool IsBlocking() const override { return false; }

  grpc::Status Process(const InputMetadata& metadata, grpc::AuthContext* connection,
                       OutputMetadata* /*consumed*/, OutputMetadata* /*response*/) override {
    const auto path = metadata.find(":path");
    const absl::Status status = CheckAccess(
        CallerOf(*connection), path == metadata.end()
                                   ? absl::string_view()
                                   : absl::string_view(path->second.data(), path->second.size()));
    if (!status.ok()) LogRefusal(absl::StrCat("refused a call: ", status.message()));
    return ToGrpcStatus(status);
  }
};

}  // namespace

absl::string_view RoleName(Role role) {
  switch (role) {
    case Role::kService:
      return "service";
    case Role::kWorker:
      return "worker";
    case Role::kOperator:
      return "operator";
    case Role::kViewer:
      return "viewer";
  }
  return "";
}

std::string RoleUri(Role role) { return absl::StrCat("urn:smartpipe:role:", RoleName(role)); }

std::string RolesText(RoleSet roles) {
  std::vector<absl::string_view> names;
  for (const Role role : kRoles) {
    if (roles.Has(role)) names.push_back(RoleName(role));
  }
  return names.empty() ? "none" : absl::StrJoin(names, " or ");
}

RoleSet RolesOf(const std::vector<std::string>& uris) {
  RoleSet roles;
  for (const Role role : kRoles) {
    if (std::find(uris.begin(), uris.end(), RoleUri(role)) != uris.end()) roles.Add(role);
  }
  return roles;
}

absl::Span<const AccessRow> AccessTable() { return kAccessTable; }

Caller CallerOf(const grpc::AuthContext& connection) {
  // Whatever else a connection may be, it has to show a role.
  const std::vector<std::string> types = Values(connection, "transport_security_type");
  if (types.empty() || types == std::vector<std::string>{"insecure"})
    return {.name = "local", .is_local = true};
  const std::vector<std::string> names = Values(connection, "x509_common_name");
  return {.name = names.empty() ? "" : names.front(),
          .roles = RolesOf(Values(connection, "peer_uri"))};
}

Caller CallerOf(const grpc::ServerContextBase& context) {
  const std::shared_ptr<const grpc::AuthContext> connection = context.auth_context();
  return connection == nullptr ? Caller{.name = "local", .is_local = true} : CallerOf(*connection);
}

absl::Status CheckAccess(const Caller& caller, absl::string_view path) {
  if (caller.is_local) return absl::OkStatus();
  const auto row = std::find_if(std::begin(kAccessTable), std::end(kAccessTable),
                                [path](const AccessRow& row) { return row.path == path; });
  const RoleSet allowed = row == std::end(kAccessTable) ? RoleSet() : row->roles;
  if (allowed.Intersects(caller.roles)) return absl::OkStatus();
  const std::string who =
      absl::StrCat(Shown(caller.name), caller.roles.empty()
                                           ? ", whose certificate names no role,"
                                           : absl::StrCat(" (role ", RolesText(caller.roles), ")"));
  if (allowed.empty()) {
    return absl::PermissionDeniedError(absl::StrCat(
        who, " may not call ", Shown(path), ": no role may; is it an rpc of another version?"));
  }
  return absl::PermissionDeniedError(absl::StrCat(who, " may not call ", path.substr(1),
                                                  ", which needs role ", RolesText(allowed),
                                                  "; use a certificate of that role"));
}

std::shared_ptr<grpc::AuthMetadataProcessor> MakeAccessCheck() {
  return std::make_shared<AccessCheck>();
}

}  // namespace smartpipe
