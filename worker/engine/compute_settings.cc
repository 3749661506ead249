#include "worker/engine/compute_settings.h"

#include <malloc.h>

#include <cstdlib>

#include "ATen/Context.h"
#include "ATen/Parallel.h"

namespace smartpipe {

void SetUpEnvironment() {
  // A workspace of fixed size: with others cuBLAS may sum in another order from call to call.
  setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8", /*overwrite=*/0);
  // Streams that share a queue of the hardware wait for each other. Each channel has its own, and
  // one that waits for a peer must not hold up what the peer waits for.
  setenv("CUDA_DEVICE_MAX_CONNECTIONS", "32", /*overwrite=*/0);
}

void SetUpComputing(int64_t threads, c10::Device device) {
  at::set_num_threads(static_cast<int>(threads));
  mallopt(M_TRIM_THRESHOLD, -1);        // never give back the top of the heap
  mallopt(M_TOP_PAD, 16 << 20);         // grow it in few steps
  mallopt(M_MMAP_THRESHOLD, 32 << 20);  // the largest that is admitted
  if (device.is_cpu()) return;
  at::Context& context = at::globalContext();
  context.setDeterministicAlgorithms(true, /*warn_only=*/false);
  context.setDeterministicFillUninitializedMemory(false);  // all that is read here was written
  context.setDeterministicCuDNN(true);
  context.setBenchmarkCuDNN(false);
  context.setAllowTF32CuDNN(false);
  context.setAllowTF32CuBLAS(false);
}

}  // namespace smartpipe
