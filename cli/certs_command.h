// `smartpipe certs`: certificates for development.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "services/rpc/certificates.h"

namespace CLI {
class App;
}

namespace smartpipe {

struct CertsArguments {
  std::string dir;
  std::vector<std::string> hosts;  // that the services may have, besides this machine's
  int64_t days = 365;
  bool renew = false;
};

/// Adds the command and its options; they are read into `arguments`.
CLI::App* AddCertsCommand(CLI::App& app, CertsArguments& arguments);

/// Makes what is missing and prints what is there. Returns an exit code.
int CertsCommand(const CertsArguments& arguments);

/// What MakeCertificates left of one certificate.
struct CertificateRow {
  std::string name;  // "ca", "service", ..., "all": NAME.crt and NAME.key
  std::string what;  // "authority", "service", "service or worker or ..."
  absl::Time end;    // it is good until then
  bool is_new = false;
};

/// Makes the authority and one certificate per role in a folder, and `all` with every role: those
/// that are not there, with `renew` all but the authority, for the hosts that they had and the
/// given ones. Never overwrites anything else.
/// Errors: INVALID_ARGUMENT (malformed host), FAILED_PRECONDITION (a certificate without its key,
/// one that is there and does not name a given host), the system's reason; what was made until then
/// stays and is used by the next call.
absl::StatusOr<std::vector<CertificateRow>> MakeCertificates(const CertsArguments& arguments,
                                                             absl::Time now);

}  // namespace smartpipe
