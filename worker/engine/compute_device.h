// Where tensors live: what the engine needs to know of a device besides Torch's own dispatch.
#pragma once

#include "ATen/core/Tensor.h"
#include "worker/model/layer.h"

namespace smartpipe {

/// `host` on `device`, itself if it is there. To a GPU the copy is asynchronous, from pinned
/// memory: the caller's stream waits for it, the caller does not.
at::Tensor ToDevice(const at::Tensor& host, at::Device device);

/// Moves a layer, before it is used: its float32 tensors, in place, so that all who hold them see
/// it. Counters (int64) stay in host memory, where they are counted.
void MoveToDevice(const Layer& layer, at::Device device);

/// The same rule for state that was loaded into host memory: optimizer moments and running sums are
/// float32, numbers and steps are not.
at::Tensor StateToDevice(const at::Tensor& host, at::Device device);

}  // namespace smartpipe
