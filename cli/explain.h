// Where the time of a run went: measured steps next to what its own measured costs allow.
//
// A step's time is taken apart by playing the plan's programs with the median times of its own
// instructions, each part being what one more cause adds:
//
//   bound         all compute but the optimizer, spread evenly over the workers' cores
//   imbalance     the busiest worker beyond that
//   schedule      waiting that the schedule imposes, messages and optimizer being free
//   optimizer     what the optimizer's time adds
//   communication what sending (on the compute thread) and travelling of messages adds; so far:
//                 the simulated step
//   verdict       waiting for verdicts on the step's critical path (cli/critical_path.h): what a
//                 worker waits beside it lengthens no step
//   rest          measured - all this: other load, the operating system, varying instructions
//
// Workers that share cores take turns on them: compute counts in the core seconds that each
// instruction had (cli/core_time.h), and the simulation shares the cores out again.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "cli/run_trace.h"
#include "pipeline/simulate.h"

namespace smartpipe {

/// Medians over one interval.
struct MeasuredCosts {
  std::vector<StageCost> stages;  // core seconds, without sending
  std::vector<double> send_forward_s,
      send_backward_s;          // [stage] on the compute thread, per message
  std::vector<LinkCost> links;  // [edge] latency: from the end of a send to its arrival
};

/// Steps [first_step, end_step) of one interval under one plan.
struct IntervalTime {
  int64_t interval = 0;
  int64_t first_step = 0, end_step = 0;
  int64_t num_steps = 0;  // that count: not the first after a switch, an evaluation or the start
  TracePlan plan;
  MeasuredCosts costs;

  // Seconds per step. measured_s = median of the steps' times without waiting for verdicts, plus
  // that waiting spread over the interval; a step ends with its last optimizer.
  double measured_s = 0;
  double simulated_s = 0;  // bound .. communication
  double bound_s = 0, imbalance_s = 0, schedule_s = 0, optimizer_s = 0, communication_s = 0;
  double verdict_s = 0, rest_s = 0;
  double measured_bubble = 0, simulated_bubble = 0;  // share of the cores' time

  // Of the rest: what slow_worker's mean compute per step, the longest, has beyond the medians of
  // the worker that by medians is busiest; core seconds.
  double slow_instructions_s = 0;
  std::string slow_worker;
  // Of the rest: waits on the critical path for messages that had been sent before.
  double sent_message_s = 0;
  double report_s = 0;  // of the whole interval, the worker that took longest; so are these
  double evaluate_s = 0;
  /// Empty when simulated and measured are within 10%, else a sentence that says why not.
  std::string difference;
};

struct SwitchTime {
  std::string worker;
  double drain_s = 0, move_s = 0;
};

/// A notable decision and what came of it.
struct DecisionTime {
  RunDecision decision;
  // Measured in the intervals around it; 0 = not measured. after_s compares with predicted_step_s;
  // predicted_old_step_s is the new frontier with the old cuts, which nobody ran.
  double before_s = 0, after_s = 0;
  /// Of a plan: how good predicted_step_s was, and if not within 10% why; empty = not measured.
  std::string judgement;
  // Of a plan: its first step, from the end of the step before; 0 = not measured, or with an
  // evaluation in between. What it has beyond after_s is the whole cost of the switch.
  double first_step_s = 0;
  std::vector<SwitchTime> switches;  // of the workers that drained or moved
  // The shortest of those that got or gave layers: that worker came last, and what others waited
  // for it they would have waited anyway.
  double switch_s = 0;
};

struct Explanation {
  std::vector<IntervalTime> intervals;
  std::vector<DecisionTime> decisions;
  std::vector<std::string> notes;
};

/// Errors: INVALID_ARGUMENT when no interval has enough whole steps to be explained, or when the
/// traces do not fit their plan.  Cost: one pass over the events and a few short simulations per
/// interval.
absl::StatusOr<Explanation> Explain(const RunTrace& run);

/// For people, 80 columns: a table with a row per interval, what the columns mean, the sentences,
/// the decisions.
std::string ExplanationText(const RunTrace& run, const Explanation& explanation);
/// For programs: every number, in seconds and bytes.
std::string ExplanationJson(const RunTrace& run, const Explanation& explanation);

}  // namespace smartpipe
