// Certificates for tests, made as `smartpipe certs` makes them.
#pragma once

#include <string>
#include <vector>

#include "absl/time/time.h"
#include "services/rpc/certificates.h"
#include "services/rpc/tls.h"
#include "tests/testutil/process.h"

namespace smartpipe::testutil {

/// One authority and the files of those that it vouches for, in a folder of its own.
class TestAuthority {
 public:
  TestAuthority();
  /// Writes a certificate; its files are NAME.crt and NAME.key. Without `validity` it is good now.
  TlsFiles Make(const CertificateSubject& subject, absl::Duration begin = -absl::Hours(1),
                absl::Duration end = absl::Hours(30 * 24)) const;
  /// Of a client: the role's name, without hosts.
  TlsFiles Make(Role role) const {
    return Make({.name = std::string(RoleName(role)), .roles = {role}, .hosts = {}});
  }
  /// Of a service on this machine.
  TlsFiles MakeService() const {
    return Make({.name = "server", .roles = {Role::kService}, .hosts = {"127.0.0.1", "::1"}});
  }
  std::string File(const std::string& name) const { return dir_.File(name); }
  const Certificate& certificate() const { return certificate_; }

 private:
  TempDir dir_;
  Certificate certificate_;
};

}  // namespace smartpipe::testutil
