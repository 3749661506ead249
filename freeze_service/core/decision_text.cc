#include "freeze_service/core/decision_text.h"

#include <charconv>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "freeze_service/core/orders.h"
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
      verdict.stop ? ", stop" : "", verdict.checkpoint ? ", checkpoint" : "",
      "\n  in force: epoch ", verdict.plan_epoch.value(), ", frontier ", verdict.frontier.value(),
      ", cuts ", FormatCuts(verdict.cuts, num_layers, verdict.frontier), "\n  predicted s: ",
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

std::string Describe(const std::vector<std::pair<Step, LayerIndex>>& schedule) {
  return absl::StrJoin(schedule, "", [](std::string* out, const auto& entry) {
    absl::StrAppend(out, " ", entry.first.value(), ":", entry.second.value());
  });
}

std::string Describe(const PolicyOptions& policy) {
  return absl::StrCat(policy.policy, ", tau ", Exact(policy.tau), ", lambda_max ",
                      Exact(policy.lambda_max), ", warm-up ", policy.warmup_intervals, ", hits ",
                      policy.hits, ", min trainable ", policy.min_trainable, ", fixed ",
                      policy.fixed_layers, ", schedule", Describe(policy.schedule));
}

std::string Describe(const ChangePolicy& change) {
  constexpr size_t kEntriesMax = 8;
  std::string text = absl::StrCat(" ", change.policy.value_or("(the same)"));
  const auto add = [&text](absl::string_view name, const auto& value) {
    if (value.has_value()) absl::StrAppend(&text, ", ", name, " ", *value);
  };
  add("tau", change.tau);
  add("lambda_max", change.lambda_max);
  add("warm-up", change.warmup_intervals);
  add("hits", change.hits);
  add("min trainable", change.min_trainable);
  add("fixed", change.fixed_layers);
  if (change.schedule.size() > kEntriesMax) {
    absl::StrAppend(&text, ", schedule of ", change.schedule.size(), " entries");
  } else if (!change.schedule.empty()) {
    absl::StrAppend(&text, ", schedule", Describe(change.schedule));
  }
  return text;
}

std::string Describe(const Order& order) {
  std::string text(OrderName(order));
  if (const auto* freeze = std::get_if<FreezeLayers>(&order)) {
    absl::StrAppend(&text, " ", freeze->frontier.value());
  } else if (const auto* unfreeze = std::get_if<UnfreezeLayers>(&order)) {
    absl::StrAppend(&text, " ", unfreeze->frontier.value());
  } else if (const auto* rebalance = std::get_if<RebalanceStages>(&order)) {
    absl::StrAppend(&text, " ", absl::StrJoin(rebalance->cuts, " ", absl::StreamFormatter()));
  } else if (const auto* change = std::get_if<ChangePolicy>(&order)) {
    absl::StrAppend(&text, Describe(*change));
  } else if (const auto* drain = std::get_if<DrainWorker>(&order)) {
    absl::StrAppend(&text, " ", drain->worker.value());
  } else if (const auto* stop = std::get_if<StopRun>(&order); stop && stop->at_once) {
    absl::StrAppend(&text, " at once");
  }
  return text;
}

std::string Describe(const OrderGiven& given) {
  std::string text = absl::StrCat(given.request_id, " ", Describe(given.order));
  if (given.step.has_value()) absl::StrAppend(&text, " at step ", given.step->value());
  return absl::StrCat(text, ", ", WhoAndWhy(given));
}

std::string Describe(const Orders& orders) {
  std::string text = "orders:";
  if (orders.paused_at.has_value())
    absl::StrAppend(&text, " paused at boundary ", orders.paused_at->value());
  if (orders.keep_trainable.has_value())
    absl::StrAppend(&text, " trainable from layer ", orders.keep_trainable->value());
  if (!orders.stop_why.empty()) absl::StrAppend(&text, " to stop: ", orders.stop_why);
  if (!orders.leaving.value().empty()) absl::StrAppend(&text, " leaving: ", orders.leaving.value());
  if (!orders.drained.empty()) {
    absl::StrAppend(&text,
                    " drained: ", absl::StrJoin(orders.drained, " ", absl::StreamFormatter()));
  }
  text += "\n";
  for (const OrderRecord& record : orders.records) {
    absl::StrAppend(&text, "  ", Describe(record.given), "; boundary ", record.boundary.value(),
                    ", step ", record.step.value(), record.done ? ", done" : ", open", "\n");
  }
  return text;
}

std::string Describe(const LayerInfo& layer) {
  return absl::StrCat("\"", layer.name, "\" ", Describe(layer.cost));
}

}  // namespace smartpipe
