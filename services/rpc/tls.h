// The certificates of a program, and encrypted connections that both sides prove themselves on.
#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "grpcpp/security/credentials.h"
#include "grpcpp/security/server_credentials.h"

namespace smartpipe {

/// Paths of PEM files; all of them, or none for connections without TLS.
struct TlsFiles {
  std::string ca;    // certificates of the authorities that vouch for the other side
  std::string cert;  // this program's certificate, behind it those that lead to its authority
  std::string key;   // its private key, without a passphrase
  bool empty() const { return ca.empty() && cert.empty() && key.empty(); }
};

/// Whether connections can be made with these files at `now`. Warns in the log of a key that others
/// can read and of a certificate that expires within a week. OK for none.
/// Errors: INVALID_ARGUMENT (one is not given, not PEM, or the key belongs to another certificate),
/// FAILED_PRECONDITION (expired, not valid yet), the system's reason; each names the file.
absl::Status CheckTlsFiles(const TlsFiles& files, absl::Time now);

/// Credentials of TLS 1.2 or newer. A client needs a certificate of the authorities in files.ca,
/// and each of its calls a role that may make it (access.h); a server's certificate must name the
/// host that is dialled. New contents of the files are used within two seconds, for new
/// connections.  Threads: any; each holds a thread that watches the files.
std::shared_ptr<grpc::ServerCredentials> MakeServerCredentials(const TlsFiles& files);
std::shared_ptr<grpc::ChannelCredentials> MakeChannelCredentials(const TlsFiles& files);

}  // namespace smartpipe
