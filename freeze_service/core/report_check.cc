#include "freeze_service/core/report_check.h"

#include <cmath>
#include <string>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "freeze_service/core/reason.h"
#include "services/base/limits.h"
#include "services/base/status_macros.h"

namespace smartpipe {
namespace {

absl::Status Bad(absl::string_view label, absl::string_view field, const std::string& value,
                 absl::string_view wanted) {
  return absl::InvalidArgumentError(
      absl::StrCat(label, ": ", field, " is ", value, ", it must be ", wanted));
}

absl::Status CheckSecondsMax(absl::string_view label, absl::string_view field, double value) {
  if (value <= limits::kSecondsMax) return absl::OkStatus();
  return Bad(label, field, Rounded(value),
             absl::StrCat("at most ", Rounded(limits::kSecondsMax), " seconds"));
}

absl::Status CheckSeconds(absl::string_view label, absl::string_view field, double value) {
  if (!std::isfinite(value) || value < 0)
    return Bad(label, field, Rounded(value), "a time of at least 0");
  return CheckSecondsMax(label, field, value);
}

// Below 0 means "not measured".
absl::Status CheckMeasured(absl::string_view label, absl::string_view field, double value) {
  if (!std::isfinite(value))
    return Bad(label, field, Rounded(value), "a time, or below 0 for not measured");
  return CheckSecondsMax(label, field, value);
}

// Below 0 means "not measured".
absl::Status CheckBytesMax(absl::string_view label, absl::string_view field, int64_t value) {
  if (value <= limits::kTensorBytesMax) return absl::OkStatus();
  return Bad(label, field, absl::StrCat(value), absl::StrCat("at most ", limits::kTensorBytesMax));
}

absl::Status CheckNorm(absl::string_view label, absl::string_view field, double value) {
  if (!(value < 0)) return absl::OkStatus();
  return Bad(label, field, Rounded(value), "at least 0");
}

absl::Status CheckCount(absl::string_view label, absl::string_view field, int64_t value) {
  if (value >= 0) return absl::OkStatus();
  return Bad(label, field, absl::StrCat(value), "at least 0");
}

absl::Status CheckStatistics(const std::string& label, const LayerStatistics& s, bool frozen) {
  if (s.frozen != frozen) {
    return absl::InvalidArgumentError(
        absl::StrCat(label, " is reported as ", s.frozen ? "frozen" : "trainable", ", but it was ",
                     frozen ? "frozen" : "trainable"));
  }
  SP_RETURN_IF_ERROR(CheckNorm(label, "grad_norm_l2", s.grad_norm_l2));
  SP_RETURN_IF_ERROR(CheckNorm(label, "previous_grad_norm_l2", s.previous_grad_norm_l2));
  SP_RETURN_IF_ERROR(CheckNorm(label, "grad_difference_norm_l2", s.grad_difference_norm_l2));
  SP_RETURN_IF_ERROR(CheckNorm(label, "microbatch_grad_norm2_mean", s.microbatch_grad_norm2_mean));
  SP_RETURN_IF_ERROR(CheckNorm(label, "previous_microbatch_grad_norm2_mean",
                               s.previous_microbatch_grad_norm2_mean));
  SP_RETURN_IF_ERROR(CheckCount(label, "num_microbatches", s.num_microbatches));
  return CheckCount(label, "num_nonfinite_steps", s.num_nonfinite_steps);
}

absl::Status CheckCosts(const std::string& label, const LayerCost& cost) {
  SP_RETURN_IF_ERROR(CheckMeasured(label, "forward_s", cost.forward_s));
  SP_RETURN_IF_ERROR(CheckMeasured(label, "input_grad_s", cost.input_grad_s));
  SP_RETURN_IF_ERROR(CheckMeasured(label, "weight_grad_s", cost.weight_grad_s));
  SP_RETURN_IF_ERROR(CheckMeasured(label, "optimize_s", cost.optimize_s));
  SP_RETURN_IF_ERROR(CheckBytesMax(label, "output_bytes", cost.output_bytes));
  SP_RETURN_IF_ERROR(CheckBytesMax(label, "param_bytes", cost.param_bytes));
  SP_RETURN_IF_ERROR(CheckBytesMax(label, "state_bytes", cost.state_bytes));
  return CheckBytesMax(label, "activation_bytes", cost.activation_bytes);
}

bool SameBits(double a, double b) { return a == b || (std::isnan(a) && std::isnan(b)); }

bool SameStatistics(const LayerStatistics& a, const LayerStatistics& b) {
  return std::tie(a.layer, a.frozen, a.has_previous, a.num_microbatches, a.num_nonfinite_steps) ==
             std::tie(b.layer, b.frozen, b.has_previous, b.num_microbatches,
                      b.num_nonfinite_steps) &&
         SameBits(a.grad_norm_l2, b.grad_norm_l2) &&
         SameBits(a.previous_grad_norm_l2, b.previous_grad_norm_l2) &&
         SameBits(a.grad_difference_norm_l2, b.grad_difference_norm_l2) &&
         SameBits(a.microbatch_grad_norm2_mean, b.microbatch_grad_norm2_mean) &&
         SameBits(a.previous_microbatch_grad_norm2_mean, b.previous_microbatch_grad_norm2_mean);
}

bool SameCost(const LayerCost& a, const LayerCost& b) {
  return std::tie(a.forward_s, a.input_grad_s, a.weight_grad_s, a.optimize_s, a.output_bytes,
                  a.param_bytes, a.state_bytes, a.activation_bytes) ==
         std::tie(b.forward_s, b.input_grad_s, b.weight_grad_s, b.optimize_s, b.output_bytes,
                  b.param_bytes, b.state_bytes, b.activation_bytes);
}

}  // namespace

absl::Status CheckReportContents(const IntervalReported& report,
                                 const std::vector<LayerIndex>& expected, LayerIndex frontier,
                                 const std::vector<LayerInfo>& layers) {
  const size_t num_statistics = report.statistics.size(), num_costs = report.costs.size();
  if (num_statistics != expected.size() || num_costs != expected.size()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the report has statistics of ", Counted(num_statistics, "layer"), " and costs of ",
        num_costs, ", its worker has ", Counted(expected.size(), "layer"), ", from ",
        expected.front().value(), " to ", expected.back().value()));
  }
  for (size_t i = 0; i < expected.size(); ++i) {
    const LayerStatistics& statistics = report.statistics[i];
    const LayerIndex layer = expected[i];
    if (statistics.layer != layer) {
      return absl::InvalidArgumentError(absl::StrCat("entry ", i, " of the report is layer ",
                                                     statistics.layer.value(), ", not layer ",
                                                     layer.value()));
    }
    const std::string label = LayerLabel(layer, layers[layer.value()].name);
    SP_RETURN_IF_ERROR(CheckStatistics(label, statistics, layer < frontier));
    SP_RETURN_IF_ERROR(CheckCosts(label, report.costs[i]));
  }
  SP_RETURN_IF_ERROR(CheckSeconds("report", "step_s", report.step_s));
  SP_RETURN_IF_ERROR(CheckSeconds("report", "verdict_wait_s", report.verdict_wait_s));
  SP_RETURN_IF_ERROR(CheckSeconds("report", "switch_drain_s", report.switch_drain_s));
  SP_RETURN_IF_ERROR(CheckSeconds("report", "switch_move_s", report.switch_move_s));
  SP_RETURN_IF_ERROR(CheckSeconds("report", "link_latency_s", report.link_latency_s));
  if (!(report.link_bytes_per_s >= 0 &&
        report.link_bytes_per_s <= static_cast<double>(limits::kTensorBytesMax))) {
    return absl::InvalidArgumentError(absl::StrCat("report: link_bytes_per_s is ",
                                                   report.link_bytes_per_s, ", it must be in 0..",
                                                   limits::kTensorBytesMax));
  }
  SP_RETURN_IF_ERROR(CheckCount("report", "switch_moved_bytes", report.switch_moved_bytes));
  return CheckBytesMax("report", "switch_moved_bytes", report.switch_moved_bytes);
}

bool SameReport(const IntervalReported& a, const IntervalReported& b) {
  if (std::tie(a.worker, a.generation, a.plan_epoch, a.interval, a.step_s, a.verdict_wait_s,
               a.switch_drain_s, a.switch_move_s, a.switch_moved_bytes, a.link_bytes_per_s,
               a.link_latency_s) != std::tie(b.worker, b.generation, b.plan_epoch, b.interval,
                                             b.step_s, b.verdict_wait_s, b.switch_drain_s,
                                             b.switch_move_s, b.switch_moved_bytes,
                                             b.link_bytes_per_s, b.link_latency_s) ||
      a.statistics.size() != b.statistics.size() || a.costs.size() != b.costs.size()) {
    return false;
  }
  for (size_t i = 0; i < a.statistics.size(); ++i) {
    if (!SameStatistics(a.statistics[i], b.statistics[i])) return false;
  }
  for (size_t i = 0; i < a.costs.size(); ++i) {
    if (!SameCost(a.costs[i], b.costs[i])) return false;
  }
  return true;
}

}  // namespace smartpipe
