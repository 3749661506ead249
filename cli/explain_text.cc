// An explanation as text and as JSON.
#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "cli/explain.h"
#include "cli/render.h"
#include "nlohmann/json.hpp"
#include "pipeline/plan.h"

namespace smartpipe {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kWidth = 80;

// Milliseconds with as many digits as a column has room for.
std::string Cell(double seconds) {
  double ms = seconds * 1e3;
  if (std::fabs(ms) < 0.05) ms = 0;
  return absl::StrFormat(std::fabs(ms) < 999.95 ? "%.1f" : "%.0f", ms);
}

std::string PercentCell(double share) { return absl::StrFormat("%.0f%%", share * 100); }

std::string PlanText(const RunTrace& run, const TracePlan& plan) {
  std::vector<LayerIndex> cuts;
  for (const int32_t cut : plan.cuts) cuts.push_back(LayerIndex(cut));
  return FormatCuts(cuts, run.header().num_layers, LayerIndex(plan.frontier));
}

std::string Row(const std::vector<std::string>& cells) {
  static constexpr int kWidths[] = {6, 7, 7, 7, 8, 6, 6, 6, 6, 6, 6, 5, 4};
  std::string out;
  for (size_t i = 0; i < cells.size(); ++i)
    absl::StrAppend(&out, absl::StrFormat("%*s", kWidths[i], cells[i]));
  out.erase(out.find_last_not_of(' ') + 1);
  return absl::StrCat(out, "\n");
}

std::string Table(const Explanation& explanation) {
  std::string out =
      Row({"from", "", "", "simu-", "", "imba-", "sche-", "opti-", "mes-", "", "", "idle", ""}) +
      Row({"step", "frozen", "step", "lated", "= bound", "lance", "dule", "mizer", "sages", "wait",
           "rest", "meas", "sim"});
  for (const IntervalTime& time : explanation.intervals) {
    out.append(Row({absl::StrCat(time.first_step), absl::StrCat(time.plan.frontier),
                    Cell(time.measured_s), Cell(time.simulated_s), Cell(time.bound_s),
                    Cell(time.imbalance_s), Cell(time.schedule_s), Cell(time.optimizer_s),
                    Cell(time.communication_s), Cell(time.verdict_s), Cell(time.rest_s),
                    PercentCell(time.measured_bubble), PercentCell(time.simulated_bubble)}));
  }
  return out;
}

constexpr char kLegend[] = R"(
step         measured, median: from a step's last optimizer to the next one's
simulated    the schedule played with the median times of its own instructions:
 = bound       all compute but the optimizer, spread evenly over the workers,
               or over the cores where the workers share fewer
 + imbalance   what the busiest worker has beyond that
 + schedule    waiting that the schedule imposes
 + optimizer   what the optimizer adds
 + messages    what sending them, and waiting while they travel, adds
wait + rest  step - simulated: waiting for verdicts that made the step longer,
             and what nothing above explains: other load, the operating system
idle         share of the workers' (or cores') time without compute: measured,
             simulated
)";

// What taking up a plan cost.
std::string SwitchText(const DecisionTime& time) {
  std::string text = "switching drained and moved nothing";
  if (!time.switches.empty()) {
    const std::string workers =
        absl::StrJoin(time.switches, "; ", [](std::string* out, const SwitchTime& worker) {
          absl::StrAppend(out, worker.worker, " drain ", Cell(worker.drain_s), ", move ",
                          Cell(worker.move_s));
        });
    text = absl::StrFormat(
        "switching took the last worker %s ms to move %.1f kB (with waits for workers that are "
        "behind: %s); no regroup, as the members stay",
        Cell(time.switch_s), static_cast<double>(time.decision.moved_bytes) / 1e3, workers);
  }
  if (time.first_step_s > 0)
    absl::StrAppend(&text, "; the first step took ", Cell(time.first_step_s), " ms");
  return text;
}

std::string DecisionText(const DecisionTime& time) {
  const RunDecision& decision = time.decision;
  std::string out = Wrap(absl::StrCat("step ", decision.step,
                                      decision.is_plan ? ": " : " (no change): ", decision.reason),
                         kWidth, 2);
  std::string line = absl::StrCat(
      "measured step ", time.before_s > 0 ? absl::StrCat(Cell(time.before_s), " -> ") : "",
      time.after_s > 0 ? Cell(time.after_s) : "?", " ms");
  if (decision.predicted_step_s > 0) {
    absl::StrAppend(&line, "; predicted ", Cell(decision.predicted_step_s), " ms");
    if (decision.predicted_old_step_s > 0) {
      absl::StrAppend(&line, ", with the old cuts ", Cell(decision.predicted_old_step_s), " ms");
    }
  }
  if (!time.judgement.empty()) absl::StrAppend(&line, "; ", time.judgement);
  absl::StrAppend(&out, Wrap(line, kWidth, 4));
  return decision.is_plan && decision.step > 0
             ? absl::StrCat(out, Wrap(SwitchText(time), kWidth, 4))
             : out;
}

Json CostsJson(const MeasuredCosts& costs) {
  Json stages = Json::array();
  for (size_t s = 0; s < costs.stages.size(); ++s) {
    stages.push_back({{"forward_s", costs.stages[s].forward_s},
                      {"input_grad_s", costs.stages[s].input_grad_s},
                      {"weight_grad_s", costs.stages[s].weight_grad_s},
                      {"optimize_s", costs.stages[s].optimize_s},
                      {"send_forward_s", costs.send_forward_s[s]},
                      {"send_backward_s", costs.send_backward_s[s]}});
  }
  Json links = Json::array();
  for (const LinkCost& link : costs.links) links.push_back({{"latency_s", link.latency_s}});
  return {{"stages", std::move(stages)}, {"links", std::move(links)}};
}

Json IntervalJson(const IntervalTime& time) {
  return {{"interval", time.interval},
          {"first_step", time.first_step},
          {"end_step", time.end_step},
          {"steps_counted", time.num_steps},
          {"plan_epoch", time.plan.plan_epoch},
          {"frontier", time.plan.frontier},
          {"cuts", time.plan.cuts},
          {"measured_step_s", time.measured_s},
          {"simulated_step_s", time.simulated_s},
          {"bound_s", time.bound_s},
          {"imbalance_s", time.imbalance_s},
          {"schedule_s", time.schedule_s},
          {"optimizer_s", time.optimizer_s},
          {"communication_s", time.communication_s},
          {"verdict_wait_s", time.verdict_s},
          {"rest_s", time.rest_s},
          {"measured_bubble", time.measured_bubble},
          {"simulated_bubble", time.simulated_bubble},
          {"slow_instructions_s", time.slow_instructions_s},
          {"sent_message_s", time.sent_message_s},
          {"interval_report_s", time.report_s},
          {"interval_evaluate_s", time.evaluate_s},
          {"difference", time.difference},
          {"costs", CostsJson(time.costs)}};
}

Json DecisionJson(const DecisionTime& time) {
  const auto known = [](double seconds) { return seconds > 0 ? Json(seconds) : Json(nullptr); };
  Json switches = Json::array();
  for (const SwitchTime& worker : time.switches) {
    switches.push_back(
        {{"worker", worker.worker}, {"drain_s", worker.drain_s}, {"move_s", worker.move_s}});
  }
  const RunDecision& decision = time.decision;
  return {{"step", decision.step},
          {"plan_epoch", decision.plan_epoch},
          {"verdict", decision.is_plan ? "plan" : "keep"},
          {"frontier", decision.frontier},
          {"cuts", decision.cuts},
          {"reason", decision.reason},
          {"predicted_old_step_s", known(decision.predicted_old_step_s)},
          {"predicted_step_s", known(decision.predicted_step_s)},
          {"measured_before_s", known(time.before_s)},
          {"measured_after_s", known(time.after_s)},
          {"judgement", time.judgement},
          {"first_step_s", known(time.first_step_s)},
          {"switch_s", time.switch_s},
          {"moved_bytes", decision.moved_bytes},
          {"regroup_s", 0},  // the members stay
          {"workers", std::move(switches)}};
}

}  // namespace

std::string ExplanationText(const RunTrace& run, const Explanation& explanation) {
  std::string out = Wrap(
      absl::StrCat("Where the time of ", run.run_dir, " went, in ms per step, a row per interval:"),
      kWidth, 0);
  absl::StrAppend(&out, "\n", Table(explanation), kLegend);
  std::string sentences;
  for (const IntervalTime& time : explanation.intervals) {
    if (!time.difference.empty()) absl::StrAppend(&sentences, Wrap(time.difference, kWidth, 2));
  }
  if (sentences.empty()) sentences = "  none: all are within 10% of each other\n";
  absl::StrAppend(&out, "\nWhere simulated and measured are more than 10% apart:\n", sentences);
  absl::StrAppend(&out, "\nPlans:\n");
  for (const TracePlan& plan : run.plans) {
    absl::StrAppend(&out, "  from step ", plan.step, ": ", PlanText(run, plan), ", ", plan.schedule,
                    "\n");
  }
  absl::StrAppend(&out, "\nDecisions:\n");
  for (const DecisionTime& time : explanation.decisions) out.append(DecisionText(time));
  if (explanation.decisions.empty()) out.append("  none that changed anything\n");
  for (const std::string& note : explanation.notes)
    absl::StrAppend(&out, "\n", Wrap(absl::StrCat("Note: ", note, "."), kWidth, 0));
  return out;
}

std::string ExplanationJson(const RunTrace& run, const Explanation& explanation) {
  Json intervals = Json::array(), decisions = Json::array();
  for (const IntervalTime& time : explanation.intervals) intervals.push_back(IntervalJson(time));
  for (const DecisionTime& time : explanation.decisions) decisions.push_back(DecisionJson(time));
  const Json json = {{"run_dir", run.run_dir},
                     {"intervals", std::move(intervals)},
                     {"decisions", std::move(decisions)},
                     {"notes", explanation.notes}};
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace smartpipe
