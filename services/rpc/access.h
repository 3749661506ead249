// Who may call what: the roles that a client's certificate names, and one table of all rpcs.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "grpcpp/security/auth_context.h"
#include "grpcpp/security/auth_metadata_processor.h"
#include "grpcpp/server_context.h"

namespace smartpipe {

enum class Role : uint8_t { kService, kWorker, kOperator, kViewer };
inline constexpr std::array kRoles = {Role::kService, Role::kWorker, Role::kOperator,
                                      Role::kViewer};

/// "service", "worker", "operator" or "viewer".
absl::string_view RoleName(Role role);
/// How a certificate names a role, in a URI of its subject alternative names:
/// "urn:smartpipe:role:worker".
std::string RoleUri(Role role);

/// Some of the roles.
class RoleSet {
 public:
  constexpr RoleSet() = default;
  constexpr RoleSet(std::initializer_list<Role> roles) {
    for (const Role role : roles) Add(role);
  }
  constexpr void Add(Role role) { bits_ |= 1u << static_cast<unsigned>(role); }
  constexpr bool Has(Role role) const { return (bits_ >> static_cast<unsigned>(role) & 1) != 0; }
  constexpr bool Intersects(RoleSet other) const { return (bits_ & other.bits_) != 0; }
  constexpr bool empty() const { return bits_ == 0; }
  friend constexpr bool operator==(RoleSet, RoleSet) = default;

 private:
  uint32_t bits_ = 0;
};
/// "worker", "operator or viewer"; "none" for an empty set.
std::string RolesText(RoleSet roles);
/// Those that `uris` name; other URIs mean nothing.  Threads: pure.
RoleSet RolesOf(const std::vector<std::string>& uris);

/// One rpc and the roles that may call it.
struct AccessRow {
  absl::string_view path;  // "/smartpipe.v1.FreezeService/Join"
  RoleSet roles;
};
/// Every rpc that anybody may call over TLS; what is not in it is refused.
absl::Span<const AccessRow> AccessTable();

/// Who makes a call.
struct Caller {
  std::string name;  // the certificate's common name; "local" without TLS
  RoleSet roles;     // none without TLS
  bool is_local = false;
};
Caller CallerOf(const grpc::AuthContext& connection);
Caller CallerOf(const grpc::ServerContextBase& context);

/// OK when the table lets `caller` call `path`. Without TLS everything is allowed.
/// Errors: PERMISSION_DENIED that says who wanted what, and which roles may.  Threads: pure.
absl::Status CheckAccess(const Caller& caller, absl::string_view path);

/// Asks CheckAccess before each call on a connection with TLS, and logs what is refused.
std::shared_ptr<grpc::AuthMetadataProcessor> MakeAccessCheck();

}  // namespace smartpipe
