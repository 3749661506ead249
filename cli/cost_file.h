// Cost files: what layers or stages cost, as JSON. Strict: what a file says and nobody reads is a
// mistake.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "pipeline/partition.h"
#include "pipeline/simulate.h"

namespace smartpipe {

inline constexpr int64_t kCostFileBytesMax = 16 << 20;

/// For `smartpipe simulate`. Microseconds of one micro-batch; of one step for optimize_us.
///
///   {"stages": [{"forward_us": 400, "input_grad_us": 400, "weight_grad_us": 410,
///                "optimize_us": 30}, ...],
///    "links": [{"latency_us": 20, "forward_us": 55, "backward_us": 55}, ...]}
///
/// optimize_us may be left out (0), links too (free); else there is one link less than stages.
struct StageCostFile {
  std::vector<StageCost> stages;
  std::vector<LinkCost> links;
};

/// For `smartpipe plan`. Microseconds as above, for a worker of speed 1.
///
///   {"layers": [{"name": "conv1", "forward_us": 400, "input_grad_us": 400, "weight_grad_us": 410,
///                "output_bytes": 65536, "param_bytes": 9408, "activation_bytes": 131072}, ...],
///    "link_bytes_per_s": 1.2e9, "link_latency_us": 20, "worker_speed": [1, 1, 0.5, 1]}
///
/// All but layers may be left out: links are free then and workers equal; else worker_speed has one
/// number for each worker. A layer may also have
/// optimize_us (0) and state_bytes (weights, buffers and what the optimizer keeps; param_bytes).
struct LayerCostFile {
  std::vector<std::string> names;  // [layer]
  std::vector<LayerCost> layers;
  double link_bytes_per_s = 0;
  double link_latency_s = 0;
  std::vector<double> worker_speed;
};

/// Errors: INVALID_ARGUMENT, one sentence with the file and the place in it; for an unknown key
/// with the nearest valid one. The system's reason if the file cannot be read.
absl::StatusOr<StageCostFile> ReadStageCosts(const std::string& path);
absl::StatusOr<LayerCostFile> ReadLayerCosts(const std::string& path);

/// The same from text; `path` is for messages.
absl::StatusOr<StageCostFile> ParseStageCosts(absl::string_view text, const std::string& path);
absl::StatusOr<LayerCostFile> ParseLayerCosts(absl::string_view text, const std::string& path);

}  // namespace smartpipe
