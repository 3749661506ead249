// Process-wide settings for computing, the same in every program that trains.
#pragma once

#include <cstdint>

#include "c10/core/Device.h"

namespace smartpipe {

/// Called first in main, while there is one thread: variables of the environment that libraries
/// read when a GPU is first used. What is set already stays as it is.
void SetUpEnvironment();

/// Called once by the compute thread, before anything is computed. `threads` work on each operator:
/// 1 and 2 threads give different bytes, so this is part of the config. Freed memory stays with the
/// process: tensors of a MiB come and go in every micro-batch, and fetching their pages from the
/// kernel each time costs a tenth of a step. Cost: resident memory stays at its peak.
///
/// For a GPU also, all of them for equal bytes on each run on the same model of GPU: deterministic
/// algorithms only (an operator that has none is an error), no search for the fastest convolution,
/// float32 products in float32, not TF32.
void SetUpComputing(int64_t threads, c10::Device device = c10::kCPU);

}  // namespace smartpipe
