// Runs that the simulator played must be explained without a rest, and each fault that is put into
// one must show up under its own name.
#include "cli/explain.h"

#include <algorithm>
#include <cmath>
#include <tuple>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/testutil/process.h"
#include "tests/unit/cli/synthetic_run.h"

namespace smartpipe {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;
using testutil::CostMs;
using testutil::MakePlan;
using testutil::SyntheticRun;

constexpr double kUs = 1e-6;

Explanation ExplainRun(const SyntheticRun& run) {
  const testutil::TempDir dir;
  testutil::WriteRun(run, dir.path());
  const absl::StatusOr<RunTrace> trace = LoadRunTrace(dir.path());
  EXPECT_TRUE(trace.ok()) << trace.status();
  const absl::StatusOr<Explanation> explanation = Explain(*trace);
  EXPECT_TRUE(explanation.ok()) << explanation.status();
  for (const IntervalTime& time : explanation->intervals) {
    EXPECT_DOUBLE_EQ(
        time.bound_s + time.imbalance_s + time.schedule_s + time.optimizer_s + time.communication_s,
        time.simulated_s);
    EXPECT_DOUBLE_EQ(time.simulated_s + time.verdict_s + time.rest_s, time.measured_s);
  }
  return *explanation;
}

SyntheticRun TwoStages() {
  return {
      .stretches = {{.plan = MakePlan(0, {4}), .costs = {CostMs(2, 0, 3, 1), CostMs(3, 3, 3, 1)}}}};
}

TEST(Explain, WhatWasSimulatedIsMeasured) {
  for (const char* schedule : {"1f1b", "gpipe"}) {
    for (const int32_t frontier : {0, 2, 3, 5}) {
      for (const int32_t credits : {1, 4}) {
        SCOPED_TRACE(absl::StrCat(schedule, " frontier ", frontier, " credits ", credits));
        std::vector<StageCost> costs = {CostMs(1, 1, 1, 0.2), CostMs(2, 2, 2, 0.3),
                                        CostMs(1.5, 2, 1, 0.1)};
        if (frontier >= 3) costs[0] = CostMs(1, 0, 0);
        if (frontier >= 5) costs[1] = CostMs(2, 0, 0);
        const Explanation explanation =
            ExplainRun({.stretches = {{.plan = MakePlan(frontier, {3, 5}, credits, schedule),
                                       .costs = costs,
                                       .num_steps = 60}}});
        ASSERT_THAT(explanation.intervals, SizeIs(3));
        for (const IntervalTime& time : explanation.intervals) {
          EXPECT_NEAR(time.rest_s, 0, kUs);
          EXPECT_NEAR(time.communication_s, 0, kUs);
          EXPECT_NEAR(time.measured_bubble, time.simulated_bubble, 1e-3);
          EXPECT_THAT(time.difference, IsEmpty());
        }
      }
    }
  }
}

TEST(Explain, TheParts) {
  const IntervalTime time = ExplainRun(TwoStages()).intervals.at(0);
  EXPECT_EQ(time.num_steps, 19) << "the first has none before it";
  EXPECT_NEAR(time.bound_s, 4 * (5 + 9) / 2 * 1e-3, kUs);
  EXPECT_NEAR(time.imbalance_s, 4 * 9e-3 - 28e-3, kUs);
  // Stage 1 waits for stage 0's first forward; stage 0 has the last backward.
  EXPECT_NEAR(time.schedule_s, (2 + 3) * 1e-3, kUs);
  EXPECT_NEAR(time.optimizer_s, 1e-3, kUs);
  EXPECT_NEAR(time.measured_bubble, 1 - (56 + 2) / (2 * time.measured_s * 1e3), 1e-3);
}

TEST(Explain, TravellingMessagesAreCommunication) {
  SyntheticRun run = TwoStages();
  const double step_s = ExplainRun(run).intervals.at(0).measured_s;
  run.stretches[0].links = {{.latency_s = 2e-3}};
  const IntervalTime time = ExplainRun(run).intervals.at(0);
  EXPECT_GT(time.measured_s, step_s + 3e-3);
  EXPECT_NEAR(time.communication_s, time.measured_s - step_s, 2 * kUs);
  EXPECT_NEAR(time.rest_s, 0, 2 * kUs);
}

TEST(Explain, SendingIsCommunication) {
  SyntheticRun run = TwoStages();
  const double step_s = ExplainRun(run).intervals.at(0).measured_s;
  run.stretches[0].costs = {CostMs(2.5, 0, 3, 1), CostMs(3, 3.5, 3, 1)};
  run.stretches[0].send_s = 0.5e-3;
  const IntervalTime time = ExplainRun(run).intervals.at(0);
  EXPECT_GT(time.communication_s, 1e-3);
  EXPECT_NEAR(time.communication_s, time.measured_s - step_s, 2 * kUs);
  EXPECT_NEAR(time.rest_s, 0, 2 * kUs);
  EXPECT_NEAR(time.costs.send_forward_s[0], 0.5e-3, kUs);
  EXPECT_NEAR(time.costs.send_backward_s[1], 0.5e-3, kUs);
}

TEST(Explain, WaitingForVerdicts) {
  SyntheticRun run = TwoStages();
  for (int i = 0; i < 2; ++i) {
    run.stretches.push_back(run.stretches[0]);
    run.stretches.back().verdict_wait_s = 30e-3;
  }
  const Explanation explanation = ExplainRun(run);
  ASSERT_THAT(explanation.intervals, SizeIs(3));
  EXPECT_EQ(explanation.intervals[0].verdict_s, 0);
  for (int i = 1; i < 3; ++i) {
    EXPECT_NEAR(explanation.intervals[i].verdict_s, 30e-3 / 20, kUs);
    EXPECT_NEAR(explanation.intervals[i].rest_s, 0, kUs);
    EXPECT_NEAR(explanation.intervals[i].measured_s, explanation.intervals[0].measured_s + 1.5e-3,
                kUs);
  }
  EXPECT_THAT(explanation.intervals[1].difference, IsEmpty());
}

TEST(Explain, WorkersThatShareCores) {
  SyntheticRun run = TwoStages();
  const IntervalTime alone = ExplainRun(run).intervals.at(0);
  run.num_cores = 2;
  EXPECT_EQ(ExplainRun(run).intervals.at(0).bound_s, alone.bound_s) << "a core for each";
  // One core: what runs beside something else had half of it, so that the work is the time in which
  // anything ran.
  run.num_cores = 1;
  const Explanation explanation = ExplainRun(run);
  const IntervalTime& time = explanation.intervals.at(0);
  EXPECT_GT(time.bound_s, alone.bound_s);
  EXPECT_LT(time.bound_s, time.measured_s);
  EXPECT_EQ(time.imbalance_s, 0) << "the core is the limit, not the busiest worker";
  EXPECT_NEAR(time.measured_bubble, 0, 1e-3);
  EXPECT_THAT(explanation.notes, testing::Contains(HasSubstr("2 workers share 1 core: ")));
}

// Two workers with one micro-batch, the first frozen; times in ms of the first three steps:
//   w0: forward 10, twice ahead, then a wait for a verdict of `wait_ms` before step 2
//   w1: 10 each of forward, backward and optimizer, after `pick_up_ms` for a message that is there
void WriteFrozenFirst(double wait_ms, double pick_up_ms, const std::string& dir) {
  constexpr int64_t kMs = 1'000'000;
  const int64_t wait_ns = std::llround(wait_ms * 1e6);
  const TraceHeader header = {.num_ranks = 2, .num_layers = 2, .interval_steps = 100};
  for (int rank = 0; rank < 2; ++rank) {
    TraceHeader own = header;
    own.worker = absl::StrCat("w", rank);
    own.rank = rank;
    const auto writer =
        TraceWriter::Create(absl::StrCat(dir, "/trace-", own.worker, ".jsonl"), own);
    ASSERT_TRUE(writer.ok()) << writer.status();
    (*writer)->Add(MakePlan(1, {1}));
    int64_t free_ns = 20 * kMs;  // w1
    for (int64_t step = 0; step < 3; ++step) {
      const int64_t late_ns = step < 2 ? 0 : wait_ns;
      const int64_t sent_ns = (step + 1) * 10 * kMs + late_ns;
      if (rank == 0) {
        const int64_t start_ns = sent_ns - 10 * kMs;
        if (late_ns > 0)
          (*writer)->Add(TraceSpan{"verdict_wait", step, start_ns - late_ns, start_ns});
        (*writer)->Add(
            TraceStep{step, {{"0F0", start_ns, sent_ns}, {"0SF0", sent_ns, sent_ns + 1000}}});
        continue;
      }
      const int64_t start_ns =
          std::max<int64_t>(free_ns + std::llround(pick_up_ms * 1e6), sent_ns + 1000);
      (*writer)->Add(TraceStep{step,
                               {{"1RF0", free_ns, start_ns},
                                {"1F0", start_ns, start_ns + 10 * kMs},
                                {"1B0", start_ns + 10 * kMs, start_ns + 20 * kMs},
                                {"1OPT", start_ns + 20 * kMs, start_ns + 30 * kMs}}});
      free_ns = start_ns + 30 * kMs;
    }
  }
}

TEST(Explain, OnlyWaitsOnTheCriticalPathCount) {
  // w1 takes 20..110 for its steps, and w0's message of step 2 is there at 30 + wait: it is needed
  // at 80. A step of w1 takes 30; two count.
  for (const auto& [wait_ms, counted_ms] :
       {std::pair(0.0, 0.0), {30.0, 0.0}, {49.0, 0.0}, {60.0, 0.0}, {75.0, 15.0}, {90.0, 30.0}}) {
    SCOPED_TRACE(absl::StrCat("wait ", wait_ms));
    const testutil::TempDir dir;
    WriteFrozenFirst(wait_ms, 0, dir.path());
    const absl::StatusOr<RunTrace> trace = LoadRunTrace(dir.path());
    ASSERT_TRUE(trace.ok()) << trace.status();
    const absl::StatusOr<Explanation> explanation = Explain(*trace);
    ASSERT_TRUE(explanation.ok()) << explanation.status();
    const IntervalTime& time = explanation->intervals.at(0);
    EXPECT_NEAR(time.verdict_s, counted_ms / 1e3 / 3, kUs) << "spread over three steps";
    EXPECT_NEAR(time.simulated_s + time.verdict_s + time.rest_s, time.measured_s, 1e-12);
  }
}

TEST(Explain, WaitsForMessagesThatWereSentAreNamed) {
  const testutil::TempDir dir;
  WriteFrozenFirst(0, 5, dir.path());
  const absl::StatusOr<RunTrace> trace = LoadRunTrace(dir.path());
  ASSERT_TRUE(trace.ok()) << trace.status();
  const absl::StatusOr<Explanation> explanation = Explain(*trace);
  ASSERT_TRUE(explanation.ok()) << explanation.status();
  const IntervalTime& time = explanation->intervals.at(0);
  EXPECT_NEAR(time.sent_message_s, 5e-3, kUs);
  EXPECT_NEAR(time.rest_s, 5e-3, 2 * kUs);
  EXPECT_THAT(time.difference, HasSubstr("messages that had been sent before, 5.0 ms a step"));
}

TEST(Explain, MessagesThatArriveBeforeTheirSendEndsMakeTheRestNegative) {
  // One micro-batch; sending takes 5 ms, but the receivers go on after 2.
  const std::vector<std::vector<TraceEvent>> events_ms = {
      {{"0F0", 0, 10}, {"0SF0", 10, 15}, {"0RB0", 15, 34}, {"0B0", 34, 44}, {"0OPT", 44, 45}},
      {{"1RF0", 0, 12}, {"1F0", 12, 22}, {"1B0", 22, 32}, {"1SB0", 32, 37}, {"1OPT", 37, 38}}};
  const testutil::TempDir dir;
  for (int rank = 0; rank < 2; ++rank) {
    const std::string worker = absl::StrCat("w", rank);
    const auto writer = TraceWriter::Create(
        dir.File(absl::StrCat("trace-", worker, ".jsonl")),
        {.worker = worker, .rank = rank, .num_ranks = 2, .num_layers = 2, .interval_steps = 100});
    ASSERT_TRUE(writer.ok()) << writer.status();
    (*writer)->Add(MakePlan(0, {1}));
    for (int64_t step = 0; step < 4; ++step) {
      TraceStep written{step, events_ms[rank]};
      for (TraceEvent& event : written.events) {
        event.start_ns = (event.start_ns + step * 45) * 1'000'000;
        event.end_ns = (event.end_ns + step * 45) * 1'000'000;
      }
      (*writer)->Add(std::move(written));
    }
  }
  const absl::StatusOr<RunTrace> trace = LoadRunTrace(dir.path());
  ASSERT_TRUE(trace.ok()) << trace.status();
  const absl::StatusOr<Explanation> explanation = Explain(*trace);
  ASSERT_TRUE(explanation.ok()) << explanation.status();
  const IntervalTime& time = explanation->intervals.at(0);
  EXPECT_NEAR(time.communication_s, 10e-3, kUs);
  EXPECT_NEAR(time.rest_s, -6e-3, kUs);
  EXPECT_THAT(time.difference, HasSubstr("messages overlap with compute more than the simulation"));
}

TEST(Explain, PredictionsAreJudged) {
  SyntheticRun run = TwoStages();
  run.stretches.push_back(run.stretches[0]);
  run.stretches[1].plan.plan_epoch = 1;
  const auto judged = [&run](double predicted_s) {
    run.decisions =
        absl::StrCat(R"({"type": "verdict", "step": 20, "verdict": "plan", "plan_epoch": 1, )",
                     R"("frontier": 0, "predicted_step_s": )", predicted_s, "}\n");
    return ExplainRun(run).decisions.at(0).judgement;  // the step is 42 ms
  };
  EXPECT_EQ(judged(0.040), "measured +5.0% of predicted, within 10%");
  EXPECT_EQ(judged(0.046), "measured -8.7% of predicted, within 10%");
  EXPECT_EQ(judged(0.030),
            "measured +40.0% of predicted, more than 10%: +12.0 ms because its instructions took "
            "other times than the planner knew (they simulate to 42.0 ms), +0.0 ms waiting for "
            "verdicts, +0.0 ms the rest");
  run.stretches[1].idle_s = 10e-3;
  EXPECT_THAT(judged(0.042), HasSubstr("more than 10%: +0.0 ms because"));
  EXPECT_THAT(judged(0.042), HasSubstr("+10.0 ms the rest"));
}

TEST(Explain, OtherLoadIsTheRestAndIsNamed) {
  SyntheticRun run = TwoStages();
  run.stretches[0].idle_s = 10e-3;
  const IntervalTime time = ExplainRun(run).intervals.at(0);
  EXPECT_NEAR(time.rest_s, 10e-3, 2 * kUs);
  EXPECT_THAT(time.difference, HasSubstr("most of it is 10.0 ms a step of waiting"));
}

// Makes the first forward of every step `late_ms` longer; all that comes after it is later.
void SlowFirstForwards(double late_ms, RunTrace* run) {
  const int64_t late_ns = std::llround(late_ms * 1e6);
  std::vector<int64_t> within_ns;
  for (const RunStep& step : run->workers[0].steps)
    within_ns.push_back(step.events.front().start_ns + step.events.front().ns() / 2);
  const auto delay = [&](int64_t ns) {
    return late_ns * (std::upper_bound(within_ns.begin(), within_ns.end(), ns) - within_ns.begin());
  };
  for (WorkerTrace& worker : run->workers) {
    for (RunStep& step : worker.steps) {
      for (RunEvent& event : step.events) {
        event.start_ns += delay(event.start_ns);
        event.end_ns += delay(event.end_ns);
      }
    }
  }
}

TEST(Explain, SlowInstructionsAreNoWaiting) {
  // Worker 0 has 20 ms of compute in a step, worker 1 36.
  const testutil::TempDir dir;
  testutil::WriteRun(TwoStages(), dir.path());
  for (const auto& [late_ms, slow_ms, said] :
       {std::tuple(60.0, 44.0, "longer than their median, 44.0 ms a step on w0: "),
        {30.0, 14.0, "most of it is 16.0 ms a step of waiting"},
        {10.0, 0.0, "most of it is 10.0 ms a step of waiting"}}) {
    absl::StatusOr<RunTrace> run = LoadRunTrace(dir.path());
    ASSERT_TRUE(run.ok()) << run.status();
    SlowFirstForwards(late_ms, &*run);
    const absl::StatusOr<Explanation> explanation = Explain(*run);
    ASSERT_TRUE(explanation.ok()) << explanation.status();
    const IntervalTime& time = explanation->intervals.at(0);
    EXPECT_NEAR(time.rest_s, late_ms * 1e-3, 2 * kUs);
    EXPECT_NEAR(time.slow_instructions_s, slow_ms * 1e-3, 2 * kUs);
    EXPECT_THAT(time.difference, HasSubstr(said));
  }
}

TEST(Explain, EvaluationsAndSwitchesAreNotInTheStep) {
  SyntheticRun run = TwoStages();
  run.stretches.push_back(run.stretches[0]);
  run.stretches[1].evaluate_s = 2;
  run.stretches.push_back({.plan = MakePlan(2, {2}),
                           .costs = {CostMs(1, 0, 0), CostMs(3, 0, 4, 1)},
                           .drain_s = 1e-3,
                           .move_s = 4e-3});
  run.stretches[2].plan.plan_epoch = 1;
  run.decisions =
      R"({"type": "start_generation", "step": 0}
{"type": "verdict", "step": 0, "verdict": "plan", "plan_epoch": 0, "frontier": 0, "cuts": [4], "moves": [], "reason": "start"}
{"type": "verdict", "step": 20, "verdict": "keep", "plan_epoch": 0, "predicted_old_step_s": 0.04, "predicted_step_s": 0.03, "reason": "a second interval must agree"}
{"type": "verdict", "step": 40, "verdict": "plan", "plan_epoch": 1, "frontier": 2, "cuts": [2], "moves": [{}, {}], "predicted_old_step_s": 0.042, "predicted_step_s": 0.03, "reason": "freezes layers 0-1"}
{"type": "verdict", "step": 60, "verdict": "keep", "reason": "keep"}
{"type": "verdict", "st)";
  const Explanation explanation = ExplainRun(run);
  ASSERT_THAT(explanation.intervals, SizeIs(3));
  EXPECT_NEAR(explanation.intervals[1].measured_s, explanation.intervals[0].measured_s, kUs);
  EXPECT_NEAR(explanation.intervals[1].evaluate_s, 2, kUs);
  EXPECT_EQ(explanation.intervals[1].num_steps, 19);
  EXPECT_EQ(explanation.intervals[2].num_steps, 19);
  EXPECT_EQ(explanation.intervals[2].plan.frontier, 2);
  EXPECT_NEAR(explanation.intervals[2].rest_s, 0, kUs);
  ASSERT_THAT(explanation.decisions, SizeIs(3));
  const DecisionTime& decision = explanation.decisions[2];
  EXPECT_EQ(decision.decision.step, 40);
  EXPECT_EQ(decision.decision.num_moves, 2);
  EXPECT_EQ(decision.before_s, explanation.intervals[1].measured_s);
  EXPECT_EQ(decision.after_s, explanation.intervals[2].measured_s);
  EXPECT_NEAR(decision.switch_s, 5e-3, kUs);
  ASSERT_THAT(decision.switches, SizeIs(2));
  EXPECT_NEAR(decision.switches[1].move_s, 4e-3, kUs);
  EXPECT_GT(decision.first_step_s, decision.after_s + 5e-3) << "with switching and filling";
}

TEST(Explain, ClocksOfTwoMachinesDoNotShow) {
  SyntheticRun run = TwoStages();
  run.stretches[0].links = {{.latency_s = 2e-3}};
  const IntervalTime on_one_clock = ExplainRun(run).intervals.at(0);
  // 90 s apart and drifting by 40 ppm; two bad readings among the good ones.
  run.clocks.resize(2);
  run.clocks[0].readings = {{.local_ns = 0, .error_ns = 1000}};
  run.clocks[1] = {
      .offset_ns = 90'000'000'000,
      .drift = 4e-5,
      .readings = {{.local_ns = 0, .error_ns = 1000},
                   {.local_ns = 500'000'000, .offset_ns = 5'000'000, .error_ns = 6'000'000},
                   {.local_ns = 30'000'000'000, .error_ns = 1000},
                   {.local_ns = 31'000'000'000, .offset_ns = -8'000'000, .error_ns = 9'000'000}}};
  const IntervalTime time = ExplainRun(run).intervals.at(0);
  EXPECT_NEAR(time.measured_s, on_one_clock.measured_s, 4 * kUs);
  EXPECT_NEAR(time.communication_s, on_one_clock.communication_s, 10 * kUs);
  EXPECT_NEAR(time.rest_s, 0, 10 * kUs);
}

TEST(Explain, AStepCannotBeExplainedAlone) {
  const testutil::TempDir dir;
  SyntheticRun run = TwoStages();
  run.stretches[0].num_steps = 1;
  testutil::WriteRun(run, dir.path());
  const absl::StatusOr<RunTrace> trace = LoadRunTrace(dir.path());
  ASSERT_TRUE(trace.ok()) << trace.status();
  EXPECT_THAT(std::string(Explain(*trace).status().message()), HasSubstr("train for longer"));
}

TEST(Explain, TextAndJson) {
  SyntheticRun run = TwoStages();
  run.stretches[0].num_steps = 50;
  const testutil::TempDir dir;
  testutil::WriteRun(run, dir.path());
  const absl::StatusOr<RunTrace> trace = LoadRunTrace(dir.path());
  ASSERT_TRUE(trace.ok()) << trace.status();
  const absl::StatusOr<Explanation> explanation = Explain(*trace);
  ASSERT_TRUE(explanation.ok()) << explanation.status();
  const std::string text = ExplanationText(*trace, *explanation);
  for (const absl::string_view line : absl::StrSplit(text, '\n'))
    EXPECT_LE(line.size(), 80u + (absl::StrContains(line, dir.path()) ? dir.path().size() : 0));
  EXPECT_THAT(text, HasSubstr("  step frozen   step  lated"));
  EXPECT_THAT(text,
              HasSubstr("\n    20      0   42.0   42.0    28.0   8.0   5.0   1.0   0.0   0.0"));
  EXPECT_THAT(text, HasSubstr("none: all are within 10%"));
  EXPECT_THAT(text, HasSubstr("decisions.jsonl is missing"));
  const auto json = nlohmann::json::parse(ExplanationJson(*trace, *explanation));
  EXPECT_NEAR(json["intervals"][1]["measured_step_s"].get<double>(), 0.042, kUs);
  EXPECT_EQ(json["intervals"][2]["first_step"], 40);
  EXPECT_EQ(json["decisions"].size(), 0u);
  testutil::WriteFile(dir.File("decisions.jsonl"),
                      R"({"type": "verdict", "step": 0, "verdict": "plan", "reason": "starts"})");
  const absl::StatusOr<RunTrace> decided = LoadRunTrace(dir.path());
  ASSERT_TRUE(decided.ok()) << decided.status();
  EXPECT_THAT(ExplanationText(*decided, *Explain(*decided)),
              HasSubstr("  step 0: starts\n    measured step 42.0 ms\n"));
}

}  // namespace
}  // namespace smartpipe
