// The run's measured costs as the file that `smartpipe plan --costs` reads.
#pragma once

#include <string>
#include <vector>

#include "freeze_service/core/events.h"
#include "pipeline/partition.h"

namespace smartpipe {

/// `{"layers": [{"name", "forward_us", ...}], "link_bytes_per_s", "link_latency_us",
/// "worker_speed"}`: names of `layers`, numbers of `input`. Times are microseconds of one
/// micro-batch; a layer that was never measured trainable keeps its profiled times.
std::string CostFileJson(const std::vector<LayerInfo>& layers, const PlannerInput& input);

}  // namespace smartpipe
