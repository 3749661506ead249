#include "services/rpc/quiet.h"

#include <cstdlib>

#include "grpc/support/log.h"

namespace smartpipe {

void QuietGrpcLog() {
  static const bool once = [] {
    if (std::getenv("GRPC_VERBOSITY") == nullptr && std::getenv("GRPC_TRACE") == nullptr) {
      gpr_set_log_function([](gpr_log_func_args*) {});
    }
    return true;
  }();
  (void)once;
}

}  // namespace smartpipe
