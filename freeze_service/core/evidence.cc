#include "freeze_service/core/evidence.h"

#include <algorithm>
#include <limits>

#include "freeze_service/core/policy.h"
#include "freeze_service/core/statistics.h"

namespace smartpipe {
namespace {

template <typename T>
void KeepNewest(T reported, T* known) {
  if (reported >= 0) *known = reported;
}

void LearnCost(const LayerCost& reported, LayerCost* known) {
  KeepNewest(reported.forward_s, &known->forward_s);
  KeepNewest(reported.input_grad_s, &known->input_grad_s);
  KeepNewest(reported.weight_grad_s, &known->weight_grad_s);
  KeepNewest(reported.optimize_s, &known->optimize_s);
  KeepNewest(reported.output_bytes, &known->output_bytes);
  KeepNewest(reported.param_bytes, &known->param_bytes);
  KeepNewest(reported.state_bytes, &known->state_bytes);
  KeepNewest(reported.activation_bytes, &known->activation_bytes);
}

// The worker that drained last kept the others waiting, so the shortest wait is what draining cost.
// Receivers work at the same time: all that moved took as long as the slowest of them.
void LearnSwitch(const std::vector<IntervalReported>& reports, Evidence* evidence) {
  double drain_s = std::numeric_limits<double>::infinity(), move_s = 0, moved_bytes = 0;
  for (const IntervalReported& report : reports) {
    drain_s = std::min(drain_s, report.switch_drain_s);
    if (report.switch_moved_bytes <= 0) continue;
    moved_bytes += static_cast<double>(report.switch_moved_bytes);
    move_s = std::max(move_s, report.switch_move_s);
  }
  if (moved_bytes == 0) return;
  evidence->drain_s = drain_s;
  if (move_s > 0) evidence->bytes_per_s = moved_bytes / move_s;
}

void LearnLinks(const std::vector<IntervalReported>& reports, Evidence* evidence) {
  double bytes_per_s = 0, latency_s = 0;
  for (const IntervalReported& report : reports) {
    if (report.link_bytes_per_s <= 0) continue;
    bytes_per_s =
        bytes_per_s == 0 ? report.link_bytes_per_s : std::min(bytes_per_s, report.link_bytes_per_s);
    latency_s = std::max(latency_s, report.link_latency_s);
  }
  if (bytes_per_s == 0) return;
  evidence->link_bytes_per_s = bytes_per_s;
  evidence->link_latency_s = latency_s;
}

}  // namespace

Evidence LearnCosts(Evidence evidence, const std::vector<IntervalReported>& reports) {
  for (const IntervalReported& report : reports) {
    for (size_t i = 0; i < report.statistics.size(); ++i) {
      LearnCost(report.costs[i], &evidence.layers[report.statistics[i].layer.value()].cost);
    }
  }
  LearnSwitch(reports, &evidence);
  LearnLinks(reports, &evidence);
  return evidence;
}

Evidence Learn(Evidence evidence, const std::vector<IntervalReported>& reports,
               absl::string_view statistic) {
  evidence = LearnCosts(std::move(evidence), reports);
  ++evidence.interval;
  std::vector<double> etas(evidence.layers.size());
  evidence.no_evidence.resize(evidence.layers.size());
  for (const IntervalReported& report : reports) {
    for (const LayerStatistics& statistics : report.statistics) {
      const int32_t index = statistics.layer.value();
      Eta eta = ComputeEta(statistics, evidence.layers[index].name, statistic);
      etas[index] = eta.value;
      evidence.no_evidence[index] = std::move(eta.no_evidence);
    }
  }
  if (evidence.eta_history.size() == kEtaHistory) {
    evidence.eta_history.erase(evidence.eta_history.begin());
  }
  evidence.eta_history.push_back(std::move(etas));
  return evidence;
}

}  // namespace smartpipe
