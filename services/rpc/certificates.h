// Certificates for development: an authority, and what it vouches for.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "services/rpc/access.h"

namespace smartpipe {

/// PEM texts.
struct Certificate {
  std::string cert;
  std::string key;  // EC P-256, without a passphrase
};

/// When a certificate is good.
struct Validity {
  absl::Time begin, end;
};

/// What one certificate says of its owner.
struct CertificateSubject {
  std::string name;  // common name, 1..64 bytes of UTF-8
  RoleSet roles;
  /// Host names and addresses that it may serve; with none it serves for clients only.
  std::vector<std::string> hosts;
};

/// A new authority that vouches for itself.
/// Errors: INTERNAL with OpenSSL's reason.  Threads: any, also of the others.
absl::StatusOr<Certificate> MakeAuthority(const std::string& name, const Validity& validity);

/// A new key and its certificate, good no longer than the authority's.
/// Errors: INVALID_ARGUMENT (malformed name or host, an authority that is not PEM or whose key does
/// not fit), INTERNAL with OpenSSL's reason.
absl::StatusOr<Certificate> MakeCertificate(const Certificate& authority,
                                            const CertificateSubject& subject,
                                            const Validity& validity);

/// When a certificate is good.  Errors: INVALID_ARGUMENT when it is not PEM.
absl::StatusOr<Validity> ValidityOf(const std::string& cert_pem);
/// The hosts that it names, addresses as CanonicalHost writes them.  Errors: as above.
absl::StatusOr<std::vector<std::string>> HostsOf(const std::string& cert_pem);
/// "0:0:0:0:0:0:0:1" as "::1"; what is no address as it is.
std::string CanonicalHost(const std::string& host);

}  // namespace smartpipe
