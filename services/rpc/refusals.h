// Log lines about connections and calls that were refused, few however many there are.
#pragma once

#include <map>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace smartpipe {

/// Lets each text through once a minute.  Threads: one at a time.
class OncePerMinute {
 public:
  bool Pass(const std::string& text, absl::Time now);

 private:
  std::map<std::string, absl::Time> passed_;
};

/// Warns with `sentence`, at most once a minute.  Threads: any.
void LogRefusal(const std::string& sentence);

/// Watches the TLS connections of this process, so that ExplainGrpcError knows what was wrong with
/// a certificate: gRPC only says that something was. Call it before any is made; again is harmless.
void WatchTlsAlerts();

/// What an error line of gRPC means to the users of ours: a refused connection, or certificates on
/// the disk that cannot be used; empty = nothing. On the thread that logged it.
std::string ExplainGrpcError(absl::string_view message);

}  // namespace smartpipe
