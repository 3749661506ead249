// What the reports have taught so far: newest layer costs, the history of eta, and what a plan
// switch costs.
#pragma once

#include <string>
#include <vector>

#include "freeze_service/core/events.h"

namespace smartpipe {

/// Everything that verdicts are based on. A plain value.
struct Evidence {
  // Newest known costs; a field that no report measured keeps its older value.
  std::vector<LayerInfo> layers;
  IntervalIndex interval{-1};  // newest complete interval; -1 = none yet
  // Oldest first, at most kEtaHistory, [layer]; NaN = no evidence.
  std::vector<std::vector<double>> eta_history;
  std::vector<std::string> no_evidence;  // [layer] why the newest eta is NaN
  double drain_s = 0.05;                 // of the latest measured switch that moved layers
  double bytes_per_s = 500e6;            // likewise
  // Slowest edge between neighbours, as the workers measured it; 0 = not measured, free.
  double link_bytes_per_s = 0, link_latency_s = 0;
};

/// `evidence` after the reports of its next interval, one per rank; together they cover each layer
/// once.
/// Threads: pure.  Cost: O(layers * kEtaHistory).
Evidence Learn(Evidence evidence, const std::vector<IntervalReported>& reports,
               absl::string_view statistic);
/// Times and sizes only, of an interval that was learned before and run again.
Evidence LearnCosts(Evidence evidence, const std::vector<IntervalReported>& reports);

}  // namespace smartpipe
