// How the command says on stderr what went wrong.
#pragma once

#include "absl/status/status.h"

namespace smartpipe {

/// Prints "smartpipe: <message>", after what stands on stdout; returns `exit_code`.
int Fail(const absl::Status& status, int exit_code);

}  // namespace smartpipe
