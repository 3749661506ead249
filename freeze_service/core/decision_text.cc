#include "freeze_service/core/decision_text.h"

#include <charconv>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "freeze_service/core/reason.h"

namespace smartpipe {
namespace {

std::string Exact(const std::vector<double>& values) {
  return absl::StrJoin(
      values, " ", [](std::string* out, double value) { out->append(smartpipe::Exact(value)); });
}

std::string Describe(const LayerCost& cost) {
  return absl::StrCat(
      "seconds ", Exact({cost.forward_s, cost.input_grad_s, cost.weight_grad_s, cost.optimize_s}),
      ", bytes ", cost.output_bytes, " ", cost.param_bytes, " ", cost.state_bytes, " ",
      cost.activation_bytes);
}

std::string Describe(const LayerStatistics& s) {
  return absl::StrCat("layer ", s.layer.value(), s.frozen ? " frozen" : "",
                      s.has_previous ? " compared" : "", " norms ",
                      Exact({s.grad_norm_l2, s.previous_grad_norm_l2, s.grad_difference_norm_l2,
                             s.microbatch_grad_norm2_mean, s.previous_microbatch_grad_norm2_mean}),
                      ", micro-batches ", s.num_microbatches, ", non-finite ",
                      s.num_nonfinite_steps);
}

}  // namespace

std::string Exact(double value) {
  if (std::isnan(value)) return "NaN";
  char text[32];
  const std::to_chars_result end = std::to_chars(text, text + sizeof(text), value);
  return std::string(text, end.ptr);
}

std::string Describe(const Plan& plan, int32_t num_layers) {
  std::vector<std::string> workers;
  for (const std::vector<WorkerId>& stage : plan.placement) {
    workers.push_back(absl::StrJoin(stage, "+", absl::StreamFormatter()));
  }
  return absl::StrCat("epoch ", plan.plan_epoch.value(), " from step ", plan.effective_step.value(),
                      ", frontier ", plan.frontier.value(), ", cuts ",
                      FormatCuts(plan.cuts, num_layers, plan.frontier), ", workers ",
                      absl::StrJoin(workers, " "), ", ", plan.schedule, ", credits ",
                      absl::StrJoin(plan.credits, " "));
}

std::string Describe(const Verdict& verdict, int32_t num_layers) {
  std::string text = absl::StrCat(
      "boundary ", verdict.boundary.value(), " step ", verdict.step.value(), ": ",
      verdict.plan.has_value() ? absl::StrCat("plan ", Describe(*verdict.plan, num_layers))
                               : "keep",
      verdict.stop ? ", stop" : "", "\n  in force: epoch ", verdict.plan_epoch.value(),
      ", frontier ", verdict.frontier.value(), ", cuts ",
      FormatCuts(verdict.cuts, num_layers, verdict.frontier), "\n  predicted s: ",
      Exact({verdict.predicted_old_step_s, verdict.predicted_step_s, verdict.even_step_s}),
      ", moved bytes ", verdict.moved_bytes, ", moves");
  for (const LayerMove& move : verdict.moves) {
    absl::StrAppend(&text, " ", move.layer.value(), ":", move.from_stage.value(), "->",
                    move.to_stage.value());
  }
  return absl::StrCat(text, "\n  eta ", Exact(verdict.eta), "\n  ", verdict.reason,
                      "\n  frontier: ", verdict.frontier_reason);
}

std::string Describe(const IntervalReported& report) {
  std::string text = absl::StrCat(
      "report of ", report.worker.value(), ", generation ", report.generation.value(), ", epoch ",
      report.plan_epoch.value(), ", interval ", report.interval.value(), ", seconds ",
      Exact({report.step_s, report.verdict_wait_s, report.switch_drain_s, report.switch_move_s}),
      ", moved bytes ", report.switch_moved_bytes, ", link ", Exact(report.link_latency_s), " s ",
      Exact(report.link_bytes_per_s), " bytes/s");
  for (size_t i = 0; i < report.statistics.size(); ++i) {
    absl::StrAppend(&text, "\n  ", Describe(report.statistics[i]), "; ", Describe(report.costs[i]));
  }
  return text;
}

std::string Describe(const WorkerFigures& result) {
  return absl::StrCat("finished: seconds ",
                      Exact({result.train_s, result.verdict_wait_s, result.switch_s,
                             result.report_s, result.checkpoint_s}),
                      ", checkpoint bytes ", result.checkpoint_bytes_written, " ",
                      result.checkpoint_bytes_shared, ", weights ", result.weights_sha256);
}

std::string Describe(const ExecutionOptions& execution) {
  const auto on = [](bool value) { return value ? "on" : "off"; };
  return absl::StrCat(Counted(execution.num_stages, "stage"), ", ", execution.stages_per_worker,
                      " on each worker, ", execution.schedule, ", run-ahead ",
                      on(execution.run_ahead), ", ", Counted(execution.num_cores, "core"),
                      ", cuts ", absl::StrJoin(execution.cuts, " ", absl::StreamFormatter()),
                      ", rebalance ", on(execution.rebalance_enabled), " from ",
                      Exact(execution.rebalance_min_gain));
}

std::string Describe(const RunHistory& history) {
  std::string text = absl::StrCat("from step ", history.first_step.value(), ", recoveries ",
                                  history.num_recoveries);
  if (!history.last_fault.empty()) absl::StrAppend(&text, ", the last since ", history.last_fault);
  if (history.resumed_from.has_value()) {
    absl::StrAppend(&text, ", resumed from step ", history.resumed_from->value());
  }
  absl::StrAppend(&text, ", restarts at us ", absl::StrJoin(history.restart_times_us, " "));
  return text;
}

std::string Describe(const LayerInfo& layer) {
  return absl::StrCat("\"", layer.name, "\" ", Describe(layer.cost));
}

}  // namespace smartpipe
