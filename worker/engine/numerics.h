// Process-wide settings that the bytes of a run depend on.
#pragma once

#include <cstdint>

namespace smartpipe {

/// Threads per operator; calls from the compute thread before anything is computed. 1 and 2 threads
/// give different bytes, so this is part of the config.
void SetComputeThreads(int64_t threads);

}  // namespace smartpipe
