#include "worker/engine/compute_settings.h"

#include <malloc.h>

#include "ATen/Parallel.h"

namespace smartpipe {

void SetUpComputing(int64_t threads) {
  at::set_num_threads(static_cast<int>(threads));
  mallopt(M_TRIM_THRESHOLD, -1);        // never give back the top of the heap
  mallopt(M_TOP_PAD, 16 << 20);         // grow it in few steps
  mallopt(M_MMAP_THRESHOLD, 32 << 20);  // the largest that is admitted
}

}  // namespace smartpipe
