// Layers, reports and decisions for tests of the core: short to write, and short to read.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "freeze_service/core/coordinator.h"

namespace smartpipe::testutil {

/// A layer with times in milliseconds per micro-batch and `state_bytes` of weights and state.
LayerInfo MakeLayer(const std::string& name, double forward_ms, double input_grad_ms,
                    double weight_grad_ms, int64_t state_bytes);
/// "stem", "block1", ..., "head": 1 ms each for forward, input gradient and weight gradient, 1000
/// bytes of state.
std::vector<LayerInfo> MakeLayers(int32_t num_layers);

/// The verdicts in force, without statistics.
std::vector<Verdict> InForce(const Coordinator& coordinator);
/// Norms whose eta, by any of "norm" and "vector", is `eta`. NaN and infinity become the norm
/// itself.
LayerStatistics MakeStatistics(LayerIndex layer, double eta);

/// The report that worker `rank` owes for `interval`: its stage by the verdict in force (the newest
/// verdict if there is none for that interval), eta[layer] and costs[layer] of the whole model, not
/// measured where a layer is frozen. Interval 0 has no previous interval.
IntervalReported MakeReport(const Coordinator& coordinator, const std::vector<WorkerId>& members,
                            Rank rank, IntervalIndex interval, const std::vector<double>& eta,
                            const std::vector<LayerInfo>& costs);

/// One line per decision; "ok" for none; "CODE: message" for an error.
std::string Text(const absl::StatusOr<std::vector<Decision>>& result, int32_t num_layers);

}  // namespace smartpipe::testutil
