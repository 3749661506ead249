#include "cli/explain.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "cli/measurement.h"
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
  std::vector<Program> programs;
  SimulateOptions options;
};

absl::StatusOr<Machinery> MakeMachinery(const TraceHeader& header, const TracePlan& plan,
                                        int num_frozen_stages) {
  Machinery machinery;
  machinery.shape = {.num_stages = static_cast<int32_t>(plan.cuts.size()) + 1,
                     .num_microbatches = header.num_microbatches,
                     .num_frozen_stages = num_frozen_stages,
                     .stage_to_rank = plan.stage_to_rank};
  SP_ASSIGN_OR_RETURN(machinery.programs, MakePrograms(machinery.shape, plan.schedule));
  machinery.options = {
      .num_steps = kSimulatedSteps, .credits = plan.credits, .run_ahead = header.run_ahead};
  return machinery;
}

// A step from its last optimizer to the next one's, as in the measurement, once it has settled.
absl::StatusOr<double> StepSeconds(const Machinery& machinery, const std::vector<StageCost>& costs,
                                   const std::vector<LinkCost>& links) {
  SP_ASSIGN_OR_RETURN(const SimulateResult result, Simulate(machinery.shape, machinery.programs,
                                                            costs, links, machinery.options));
  std::vector<double> end_s(kSimulatedSteps, 0);
  for (const std::vector<TimedInstruction>& rank : result.trace) {
    for (const TimedInstruction& timed : rank) {
      if (timed.instruction.op == Op::kOptimize)
        end_s[timed.step] = std::max(end_s[timed.step], timed.end_s);
    }
  }
  std::vector<double> step_s;
  for (int i = kSimulatedSteps / 2; i < kSimulatedSteps; ++i)
    step_s.push_back(end_s[i] - end_s[i - 1]);
  return Median(std::move(step_s));
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
                        Ms(time.slow_instructions_s),
                        " a step on the busiest worker: other load or the operating system");
  }
  return absl::StrCat(head, "most of it is ", Ms(time.rest_s),
                      " a step of waiting that compute and messages do not explain: other load or "
                      "the operating system");
}

// The parts of one stretch that has been measured.
absl::Status Simulated(const RunTrace& run, const Measurement& measured, IntervalTime* out) {
  IntervalTime& time = *out;
  SP_ASSIGN_OR_RETURN(const Machinery machinery,
                      MakeMachinery(run.header(), time.plan, measured.num_frozen_stages()));
  const int num_ranks = run.header().num_ranks;
  std::vector<StageCost> without_optimizer = time.costs.stages;
  for (StageCost& cost : without_optimizer) cost.optimize_s = 0;
  const std::vector<double> compute_s = ComputeSeconds(machinery.shape, without_optimizer);
  double sum_s = 0;
  for (const double seconds : compute_s) sum_s += seconds;
  const auto busiest = std::max_element(compute_s.begin(), compute_s.end());
  SP_ASSIGN_OR_RETURN(const double schedule_s, StepSeconds(machinery, without_optimizer, {}));
  SP_ASSIGN_OR_RETURN(const double optimizer_s, StepSeconds(machinery, time.costs.stages, {}));
  SP_ASSIGN_OR_RETURN(time.simulated_s,
                      StepSeconds(machinery, WithSends(time.costs), time.costs.links));
  time.bound_s = sum_s / num_ranks;
  time.imbalance_s = *busiest - time.bound_s;
  time.schedule_s = schedule_s - *busiest;
  time.optimizer_s = optimizer_s - schedule_s;
  time.communication_s = time.simulated_s - optimizer_s;
  time.rest_s = time.measured_s - time.simulated_s - time.verdict_s;
  for (const StageCost& cost : time.costs.stages) sum_s += cost.optimize_s;
  time.simulated_bubble = time.simulated_s > 0 ? 1 - sum_s / (num_ranks * time.simulated_s) : 0;
  time.measured_bubble =
      time.measured_s > 0 ? 1 - measured.busy_s() / (num_ranks * time.measured_s) : 0;
  const int rank = static_cast<int>(busiest - compute_s.begin());
  time.slow_instructions_s = std::max(0.0, measured.mean_busy_s(rank) - *busiest);
  time.difference = Difference(time);
  return absl::OkStatus();
}

// Measured step times next to the decision's step: of the last stretch before it, the first after.
void FillAround(const std::vector<IntervalTime>& intervals, DecisionTime* out) {
  for (const IntervalTime& time : intervals) {
    if (time.end_step <= out->decision.step) out->before_s = time.measured_s;
    if (time.first_step >= out->decision.step && out->after_s == 0) out->after_s = time.measured_s;
  }
}

std::vector<DecisionTime> ExplainDecisions(const RunTrace& run,
                                           const std::vector<IntervalTime>& intervals) {
  std::vector<DecisionTime> decisions;
  for (const RunDecision& decision : run.decisions) {
    if (!decision.notable() || decision.step >= run.end_step) continue;
    DecisionTime& out = decisions.emplace_back();
    out.decision = decision;
    FillAround(intervals, &out);
    for (const WorkerTrace& worker : run.workers) {
      SwitchTime time{.worker = worker.header.worker};
      for (const TraceSpan& span : worker.spans) {
        if (span.step != decision.step) continue;
        if (span.name == "drain") time.drain_s += Seconds(span.end_ns - span.start_ns);
        if (span.name == "move") time.move_s += Seconds(span.end_ns - span.start_ns);
      }
      if (time.drain_s + time.move_s == 0) continue;
      const double switch_s = time.drain_s + time.move_s;
      out.switch_s = out.switches.empty() ? switch_s : std::min(out.switch_s, switch_s);
      out.switches.push_back(std::move(time));
    }
  }
  return decisions;
}

}  // namespace

absl::StatusOr<Explanation> Explain(const RunTrace& run) {
  Explanation explanation;
  explanation.notes = run.notes;
  int64_t num_left_out = 0;
  for (IntervalTime& stretch : Stretches(run)) {
    Measurement measurement(run, &stretch);
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
