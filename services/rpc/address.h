// host:port addresses.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace smartpipe {

struct HostPort {
  std::string host;  // without brackets
  int port = 0;      // 0..65535; 0 = any free port when listening
  bool is_ipv6 = false;

  bool is_loopback() const;      // 127.0.0.0/8, ::1 or "localhost"
  std::string ToString() const;  // "127.0.0.1:80", "[::1]:80"
};

/// Parses "host:port" or "[ipv6]:port".
/// Errors: INVALID_ARGUMENT that quotes the address and shows the form.  Threads: pure.
absl::StatusOr<HostPort> ParseHostPort(absl::string_view address);

/// Why a listening socket cannot be opened at `address`, as the system puts it ("address already in
/// use"); OK if it can. Opens and closes one.  Threads: any.
absl::Status ProbeListen(const HostPort& address);

/// The numeric address of this machine that packets to `peer` leave from ("10.0.0.7"): with several
/// networks, the one where `peer` is. Sends nothing; may ask the name service.
/// Errors: UNAVAILABLE (no such host, no way there).  Threads: any.
absl::StatusOr<std::string> SourceAddressTo(const HostPort& peer);

/// This machine's name up to the first dot, in lower case.  Threads: any.
std::string ShortHostName();

}  // namespace smartpipe
