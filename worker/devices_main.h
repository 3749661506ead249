// `stage_worker devices`: which GPUs a worker of this machine could use, or why none.
#pragma once

#include "absl/strings/string_view.h"

namespace smartpipe {

bool IsDevicesJob(absl::string_view word);

/// Loads the CUDA plug-in and prints a line for each GPU: "cuda:0  NAME  79 GiB  UUID".
/// Returns the exit code: 0 there is at least one; 1 none can be used, why and what to do on
/// stderr; other: wrong usage.
int DevicesMain(int argc, char** argv);

}  // namespace smartpipe
