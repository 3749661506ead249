#include "worker/engine/numerics.h"

#include "ATen/Parallel.h"

namespace smartpipe {

void SetComputeThreads(int64_t threads) { at::set_num_threads(static_cast<int>(threads)); }

}  // namespace smartpipe
