#include "cli/explain.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "cli/core_time.h"
#include "cli/measurement.h"
#include "pipeline/play.h"
#include "pipeline/schedule.h"
#include "services/base/status_macros.h"

namespace smartpipe {
namespace {

constexpr double kNsPerS = 1e9;
// Enough for run-ahead to fill its credits.
constexpr int kSimulatedSteps = 24;
constexpr double kToleratedDifference = 0.10;

double Seconds(int64_t ns) { return static_cast<double>(ns) / kNsPerS; }

// Stretches of steps within one interval and under one plan.
std::vector<IntervalTime> Stretches(const RunTrace& run) {
  const int64_t interval_steps = run.header().interval_steps;
  std::set<int64_t> starts;
  for (int64_t i = run.first_step / interval_steps; i * interval_steps < run.end_step; ++i)
    starts.insert(std::max(run.first_step, i * interval_steps));
  for (const TracePlan& plan : run.plans) {
    if (run.first_step < plan.step && plan.step < run.end_step) starts.insert(plan.step);
  }
  std::vector<IntervalTime> stretches;
  for (auto start = starts.begin(); start != starts.end(); ++start) {
    const auto next = std::next(start);
    IntervalTime& stretch = stretches.emplace_back();
    stretch.interval = *start / interval_steps;
    stretch.first_step = *start;
    stretch.end_step = next == starts.end() ? run.end_step : *next;
    stretch.plan = run.PlanAt(*start);
  }
  return stretches;
}

// A plan as the simulator takes it.
struct Machinery {
  ScheduleShape shape;
  Play play;
  int num_cores = 1;
};

absl::StatusOr<Machinery> MakeMachinery(const RunTrace& run, const TracePlan& plan,
                                        int num_frozen_stages) {
  const ScheduleShape shape = {.num_stages = static_cast<int32_t>(plan.cuts.size()) + 1,
                               .num_microbatches = run.header().num_microbatches,
                               .num_frozen_stages = num_frozen_stages,
                               .stage_to_rank = plan.stage_to_rank};
  SP_ASSIGN_OR_RETURN(const std::vector<Program> programs, MakePrograms(shape, plan.schedule));
  SP_ASSIGN_OR_RETURN(Play play, Play::Make(shape, programs, SendMode::kBuffered, plan.credits,
                                            run.header().run_ahead));
  return Machinery{shape, std::move(play), run.num_cores()};
}

double StepSeconds(const Machinery& machinery, const std::vector<StageCost>& costs,
                   const std::vector<LinkCost>& links) {
  return machinery.play.RunShared(costs, links, kSimulatedSteps, machinery.num_cores).step_s;
}

// Compute of each rank in a step, without the optimizer.
std::vector<double> ComputeSeconds(const ScheduleShape& shape,
                                   const std::vector<StageCost>& costs) {
  std::vector<double> compute_s(shape.num_ranks(), 0);
  for (int s = 0; s < shape.num_stages; ++s) {
    const double per_microbatch_s =
        costs[s].forward_s + costs[s].input_grad_s + costs[s].weight_grad_s;
    compute_s[shape.rank_of(s)] += shape.num_microbatches * per_microbatch_s;
  }
  return compute_s;
}

// The instruction that a send follows takes that much longer.
std::vector<StageCost> WithSends(const MeasuredCosts& costs) {
  std::vector<StageCost> stages = costs.stages;
  for (size_t s = 0; s < stages.size(); ++s) {
    stages[s].forward_s += costs.send_forward_s[s];
    stages[s].input_grad_s += costs.send_backward_s[s];
  }
  return stages;
}

std::string Ms(double seconds) { return absl::StrFormat("%.1f ms", seconds * 1e3); }

std::string SignedMs(double seconds) {
  const double ms = std::round(seconds * 1e4) / 10;
  return absl::StrFormat("%+.1f ms", ms == 0 ? 0 : ms);  // no -0
}

// Why simulated and measured are far apart.
std::string Difference(const IntervalTime& time) {
  const double gap_s = time.measured_s - time.simulated_s;
  if (std::fabs(gap_s) <= kToleratedDifference * time.measured_s) return "";
  const std::string head =
      absl::StrFormat("steps %d-%d: measured %s, simulated %s: ", time.first_step,
                      time.end_step - 1, Ms(time.measured_s), Ms(time.simulated_s));
  if (gap_s < 0) {
    return absl::StrCat(head,
                        time.communication_s > -gap_s
                            ? "messages overlap with compute more than the simulation lets "
                              "them; without their cost it says "
                            : "the pipeline waits less than the median times imply; without "
                              "messages it would take ",
                        Ms(time.simulated_s - time.communication_s));
  }
  if (time.verdict_s >= time.rest_s)
    return absl::StrCat(head, "most of it is waiting for verdicts, ", Ms(time.verdict_s),
                        " a step");
  if (time.slow_instructions_s >= time.rest_s / 2) {
    return absl::StrCat(head, "most of it is instructions that took longer than their median, ",
                        Ms(time.slow_instructions_s), " a step on ", time.slow_worker,
                        ": other load or the operating system");
  }
  if (time.sent_message_s >= time.rest_s / 2) {
    return absl::StrCat(head, "most of it is waiting for messages that had been sent before, ",
                        Ms(time.sent_message_s),
                        " a step: a message only travels when its receiver has begun the step");
  }
  return absl::StrCat(head, "most of it is ", Ms(time.rest_s - time.slow_instructions_s),
                      " a step of waiting that compute and messages do not explain: other load or "
                      "the operating system");
}

// The parts of one stretch that has been measured.
absl::Status Simulated(const RunTrace& run, const Measurement& measured, IntervalTime* out) {
  IntervalTime& time = *out;
  SP_ASSIGN_OR_RETURN(const Machinery machinery,
                      MakeMachinery(run, time.plan, measured.num_frozen_stages()));
  const int num_cores = run.num_cores();
  std::vector<StageCost> without_optimizer = time.costs.stages;
  for (StageCost& cost : without_optimizer) cost.optimize_s = 0;
  const std::vector<double> compute_s = ComputeSeconds(machinery.shape, without_optimizer);
  double sum_s = 0;
  for (const double seconds : compute_s) sum_s += seconds;
  const auto busiest = std::max_element(compute_s.begin(), compute_s.end());
  const double schedule_s = StepSeconds(machinery, without_optimizer, {});
  const double optimizer_s = StepSeconds(machinery, time.costs.stages, {});
  time.simulated_s = StepSeconds(machinery, WithSends(time.costs), time.costs.links);
  time.bound_s = sum_s / num_cores;
  time.imbalance_s = std::max(0.0, *busiest - time.bound_s);
  time.schedule_s = schedule_s - time.bound_s - time.imbalance_s;
  time.optimizer_s = optimizer_s - schedule_s;
  time.communication_s = time.simulated_s - optimizer_s;
  time.rest_s = time.measured_s - time.simulated_s - time.verdict_s;
  for (const StageCost& cost : time.costs.stages) sum_s += cost.optimize_s;
  time.simulated_bubble = time.simulated_s > 0 ? 1 - sum_s / (num_cores * time.simulated_s) : 0;
  time.measured_bubble =
      time.measured_s > 0 ? 1 - measured.busy_s() / (num_cores * time.measured_s) : 0;
  for (const WorkerTrace& worker : run.workers) {
    const double beyond_s = measured.mean_busy_s(worker.header.rank) - *busiest;
    if (beyond_s <= time.slow_instructions_s) continue;
    time.slow_instructions_s = beyond_s;
    time.slow_worker = worker.header.worker;
  }
  time.difference = Difference(time);
  return absl::OkStatus();
}

// How good the prediction of the plan in force in `after` was, by what lies between both.
std::string Judgement(const RunDecision& decision, const IntervalTime& after) {
  const double gap_s = after.measured_s - decision.predicted_step_s;
  const std::string head =
      absl::StrFormat("measured %+.1f%% of predicted, ", 100 * gap_s / decision.predicted_step_s);
  if (std::fabs(gap_s) <= kToleratedDifference * decision.predicted_step_s)
    return absl::StrCat(head, "within 10%");
  return absl::StrCat(head,
                      "more than 10%: ", SignedMs(after.simulated_s - decision.predicted_step_s),
                      " because its instructions took other times than the planner knew (they "
                      "simulate to ",
                      Ms(after.simulated_s), "), ", SignedMs(after.verdict_s),
                      " waiting for verdicts, ", SignedMs(after.rest_s), " the rest");
}

bool EvaluatedBefore(const RunTrace& run, int64_t step) {
  const absl::Span<const TraceSpan> spans = run.workers.front().SpansBefore(step);
  return std::any_of(spans.begin(), spans.end(),
                     [](const TraceSpan& span) { return span.name == "evaluate"; });
}

// What was measured around the decision: in the last interval before it, in the first one after it
// if that is under its plan, and in the step between.
void FillAround(const RunTrace& run, const std::vector<IntervalTime>& intervals,
                DecisionTime* out) {
  const RunDecision& decision = out->decision;
  const auto after =
      std::find_if(intervals.begin(), intervals.end(),
                   [&](const IntervalTime& time) { return time.first_step >= decision.step; });
  if (after != intervals.begin()) out->before_s = std::prev(after)->measured_s;
  if (after == intervals.end() || after->plan.plan_epoch != decision.plan_epoch) return;
  out->after_s = after->measured_s;
  if (!decision.is_plan) return;
  if (decision.predicted_step_s > 0) out->judgement = Judgement(decision, *after);
  const int64_t before_ns = decision.step > run.first_step ? run.StepEndNs(decision.step - 1) : -1;
  const int64_t end_ns = run.StepEndNs(decision.step);
  if (before_ns >= 0 && end_ns >= 0 && !EvaluatedBefore(run, decision.step))
    out->first_step_s = Seconds(end_ns - before_ns);
}

// Whether a rank gets or gives layers when `step` begins.
bool MovesLayers(const RunTrace& run, int64_t step, int rank) {
  const int index = run.PlanIndex(step);
  const TracePlan& plan = run.plans[index];
  const TracePlan& before = run.plans[std::max(0, index - 1)];
  if (plan.cuts.size() != before.cuts.size()) return true;
  for (size_t i = 0; i < plan.cuts.size(); ++i) {
    if (plan.cuts[i] == before.cuts[i]) continue;
    if (plan.stage_to_rank[i] == rank || plan.stage_to_rank[i + 1] == rank) return true;
  }
  return false;
}

std::vector<DecisionTime> ExplainDecisions(const RunTrace& run,
                                           const std::vector<IntervalTime>& intervals) {
  std::vector<DecisionTime> decisions;
  for (const RunDecision& decision : run.decisions) {
    if (!decision.notable() || decision.step >= run.end_step) continue;
    DecisionTime& out = decisions.emplace_back();
    out.decision = decision;
    FillAround(run, intervals, &out);
    for (const WorkerTrace& worker : run.workers) {
      SwitchTime time{.worker = worker.header.worker};
      for (const TraceSpan& span : worker.spans) {
        if (span.step != decision.step) continue;
        if (span.name == "drain") time.drain_s += Seconds(span.end_ns - span.start_ns);
        if (span.name == "move") time.move_s += Seconds(span.end_ns - span.start_ns);
      }
      if (time.drain_s + time.move_s == 0) continue;
      const double switch_s = time.drain_s + time.move_s;
      if (MovesLayers(run, decision.step, worker.header.rank))
        out.switch_s = out.switch_s == 0 ? switch_s : std::min(out.switch_s, switch_s);
      out.switches.push_back(std::move(time));
    }
  }
  return decisions;
}

}  // namespace

absl::StatusOr<Explanation> Explain(const RunTrace& run) {
  Explanation explanation;
  explanation.notes = run.notes;
  if (run.shares_cores()) {
    explanation.notes.push_back(absl::StrCat(
        run.header().num_ranks, " workers share ", run.num_cores(),
        run.num_cores() == 1 ? " core" : " cores",
        ": the work is divided by the cores, and an instruction counts with its share of a core"));
  }
  const CoreTime core_time(run);
  int64_t num_left_out = 0;
  for (IntervalTime& stretch : Stretches(run)) {
    Measurement measurement(run, core_time, &stretch);
    if (!measurement.Measure()) {
      num_left_out += stretch.end_step - stretch.first_step;
      continue;
    }
    SP_RETURN_IF_ERROR(Annotate(
        Simulated(run, measurement, &stretch),
        absl::StrCat("the plan in force at step ", stretch.first_step, " cannot be simulated")));
    explanation.intervals.push_back(std::move(stretch));
  }
  if (explanation.intervals.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(run.run_dir, " has no interval with two whole steps in a row (steps ",
                     run.first_step, "-", run.end_step - 1, "): train for longer"));
  }
  if (num_left_out > 0) {
    explanation.notes.push_back(
        absl::StrCat(num_left_out, " steps are in no row: no two whole ones follow each other"));
  }
  explanation.decisions = ExplainDecisions(run, explanation.intervals);
  return explanation;
}

}  // namespace smartpipe
