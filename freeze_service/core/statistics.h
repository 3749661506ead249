// The statistic eta from reported norms (SmartPipe, definition 2, in three readings).
#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "freeze_service/core/events.h"

namespace smartpipe {

struct Eta {
  double value = 0;         // NaN = no evidence
  std::string no_evidence;  // why it is NaN
};

/// Change of a layer's gradient between two intervals, unit-free, >= 0.
///   "norm"       | ||g(t-1)|| - ||g(t)|| | / ||g(t-1)||       relative change of the norm
///   "vector"     ||g(t-1) - g(t)|| / ||g(t-1)||               the literal reading
///   "corrected"  the vector reading with the micro-batch noise of both means taken out
/// Zero or non-finite norms, a frozen layer, or no previous interval give NaN with the reason.
///
/// "corrected": with n micro-batches in the interval, the mean gradient g(t) carries noise of
/// variance
///   v(t) = max(0, (mean over micro-batches of ||g_mb||^2 - ||g(t)||^2) / (n - 1)), and
///   eta = sqrt(max(0, ||g(t-1) - g(t)||^2 - v(t) - v(t-1)) / (||g(t-1)||^2 - v(t-1))), the divisor
///   kept above 0.
/// It needs n >= 2.
///
/// Threads: pure.  Cost: O(1).
/// Source:  SmartPipe, definition 2.  Test: tests/unit/core/statistics_test.cc
Eta ComputeEta(const LayerStatistics& statistics, const std::string& layer_name,
               absl::string_view statistic);

/// "norm", "vector", "corrected".
std::vector<std::string> StatisticNames();

}  // namespace smartpipe
