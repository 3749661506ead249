// Process-wide settings for computing, the same in every program that trains.
#pragma once

#include <cstdint>

namespace smartpipe {

/// Called once by the compute thread, before anything is computed. `threads` work on each operator:
/// 1 and 2 threads give different bytes, so this is part of the config. Freed memory stays with the
/// process: tensors of a MiB come and go in every micro-batch, and fetching their pages from the
/// kernel each time costs a tenth of a step. Cost: resident memory stays at its peak.
void SetUpComputing(int64_t threads);

}  // namespace smartpipe
