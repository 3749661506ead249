#include "services/rpc/quiet.h"

#include <cstdio>
#include <cstdlib>
#include <string>

#include "grpc/support/log.h"
#include "services/rpc/refusals.h"

namespace smartpipe {
namespace {

bool is_wanted = false;

void OnGrpcLog(gpr_log_func_args* line) {
  if (is_wanted) {
    std::fprintf(stderr, "gRPC %s %s:%d: %s\n", gpr_log_severity_string(line->severity), line->file,
                 line->line, line->message);
  }
  if (line->severity != GPR_LOG_SEVERITY_ERROR) return;
  if (const std::string sentence = ExplainGrpcError(line->message); !sentence.empty())
    LogRefusal(sentence);
}

}  // namespace

void LookAfterConnections() {
  static const bool once = [] {
    // The user's own setting stays.
    return setenv("GRPC_CLIENT_CHANNEL_BACKUP_POLL_INTERVAL_MS", "100", /*overwrite=*/0) == 0;
  }();
  (void)once;
}

void QuietGrpcLog() {
  static const bool once = [] {
    is_wanted = std::getenv("GRPC_VERBOSITY") != nullptr || std::getenv("GRPC_TRACE") != nullptr;
    WatchTlsAlerts();
    gpr_set_log_function(OnGrpcLog);
    return true;
  }();
  (void)once;
}

}  // namespace smartpipe
