#include "tests/unit/cli/synthetic_run.h"

#include <cmath>
#include <map>
#include <memory>
#include <optional>
#include <set>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "pipeline/schedule.h"
#include "tests/testutil/process.h"

namespace smartpipe::testutil {
namespace {

int64_t Ns(double seconds) { return std::llround(seconds * 1e9); }

std::optional<Instruction> SourceOf(const Instruction& send) {
  if (send.op == Op::kSendForward) return Instruction{Op::kForward, send.stage, send.microbatch};
  if (send.op == Op::kSendBackward) return Instruction{Op::kBackward, send.stage, send.microbatch};
  return std::nullopt;
}

class RunWriter {
 public:
  RunWriter(const SyntheticRun& run, const std::string& dir) : run_(run) {
    num_ranks_ = *absl::c_max_element(run.stretches[0].plan.stage_to_rank) + 1;
    clocks_ = run.clocks;
    clocks_.resize(num_ranks_);
    for (int rank = 0; rank < num_ranks_; ++rank) {
      const std::string worker = absl::StrCat("w", rank);
      auto writer = TraceWriter::Create(absl::StrCat(dir, "/trace-", worker, ".jsonl"),
                                        {.worker = worker,
                                         .rank = rank,
                                         .num_ranks = num_ranks_,
                                         .generation = 1,
                                         .num_layers = run.num_layers,
                                         .num_microbatches = run.num_microbatches,
                                         .interval_steps = run.interval_steps,
                                         .batch_size = 64,
                                         .num_cores = run.num_cores});
      EXPECT_TRUE(writer.ok()) << writer.status();
      writers_.push_back(*std::move(writer));
    }
  }

  void Write() {
    for (int rank = 0; rank < num_ranks_; ++rank) {
      for (ClockReading reading : clocks_[rank].readings) {
        const int64_t common_ns = reading.local_ns;
        reading.local_ns = Local(rank, common_ns);
        reading.offset_ns += common_ns - reading.local_ns;
        writers_[rank]->Add(reading);
      }
    }
    for (const SyntheticStretch& stretch : run_.stretches) WriteStretch(stretch);
  }

 private:
  int64_t Local(int rank, int64_t common_ns) const {
    const SyntheticClock& clock = clocks_[rank];
    return common_ns - clock.offset_ns - std::llround(clock.drift * static_cast<double>(common_ns));
  }

  void Span(const char* name, double seconds) {
    if (seconds == 0) return;
    for (int rank = 0; rank < num_ranks_; ++rank) {
      writers_[rank]->Add(TraceSpan{.name = name,
                                    .step = step_,
                                    .start_ns = Local(rank, Ns(now_s_)),
                                    .end_ns = Local(rank, Ns(now_s_ + seconds))});
    }
    now_s_ += seconds;
  }

  void WriteStretch(const SyntheticStretch& stretch) {
    Span("verdict_wait", stretch.verdict_wait_s);
    Span("drain", stretch.drain_s);
    Span("move", stretch.move_s);
    Span("evaluate", stretch.evaluate_s);
    TracePlan plan = stretch.plan;
    plan.step = step_;
    int num_frozen_stages = 0;
    for (const int32_t cut : plan.cuts) num_frozen_stages += cut <= plan.frontier;
    const ScheduleShape shape = {.num_stages = static_cast<int32_t>(plan.cuts.size()) + 1,
                                 .num_microbatches = run_.num_microbatches,
                                 .num_frozen_stages = num_frozen_stages,
                                 .stage_to_rank = plan.stage_to_rank};
    const auto programs = MakePrograms(shape, plan.schedule);
    ASSERT_TRUE(programs.ok()) << programs.status();
    const auto result = Simulate(shape, *programs, stretch.costs, stretch.links,
                                 {.num_steps = stretch.num_steps, .credits = plan.credits});
    ASSERT_TRUE(result.ok()) << result.status();
    // A plan that stays is not written again.
    const bool is_new = plan_epoch_ != plan.plan_epoch;
    plan_epoch_ = plan.plan_epoch;
    for (int rank = 0; rank < num_ranks_; ++rank) {
      if (is_new) writers_[rank]->Add(plan);
      WriteRank(stretch, rank, result->trace[rank]);
    }
    now_s_ += result->makespan_s + stretch.idle_s * (stretch.num_steps - 1);
    step_ += stretch.num_steps;
  }

  void WriteRank(const SyntheticStretch& stretch, int rank,
                 const std::vector<TimedInstruction>& timed) {
    std::vector<TraceStep> steps(stretch.num_steps);
    // When the computing ended whose result a send takes.
    std::map<std::pair<int, Instruction>, double> computed_s;
    for (const TimedInstruction& each : timed)
      computed_s[{each.step, each.instruction}] = each.end_s;
    std::set<std::pair<int, Instruction>> sent;
    for (const TimedInstruction& each : timed) {
      if (stretch.send_s == 0) break;
      if (const auto source = SourceOf(each.instruction)) sent.insert({each.step, *source});
    }
    for (const TimedInstruction& each : timed) {
      double start_s = each.start_s, end_s = each.end_s;
      const auto source = SourceOf(each.instruction);
      if (stretch.send_s > 0 && source) {
        end_s = computed_s.at({each.step, *source});
        start_s = end_s - stretch.send_s;
      }
      if (sent.contains({each.step, each.instruction})) end_s -= stretch.send_s;
      const double base_s = now_s_ + stretch.idle_s * each.step;
      steps[each.step].step = step_ + each.step;
      steps[each.step].events.push_back({Format(each.instruction),
                                         Local(rank, Ns(base_s + start_s)),
                                         Local(rank, Ns(base_s + end_s))});
    }
    for (TraceStep& step : steps) writers_[rank]->Add(std::move(step));
  }

  const SyntheticRun& run_;
  int num_ranks_ = 1;
  std::vector<SyntheticClock> clocks_;
  std::vector<std::unique_ptr<TraceWriter>> writers_;
  double now_s_ = 1;
  int64_t step_ = 0;
  int64_t plan_epoch_ = -1;
};

}  // namespace

TracePlan MakePlan(int32_t frontier, std::vector<int32_t> cuts, int32_t credits,
                   const std::string& schedule) {
  TracePlan plan{.frontier = frontier, .cuts = std::move(cuts), .schedule = schedule};
  for (size_t s = 0; s <= plan.cuts.size(); ++s)
    plan.stage_to_rank.push_back(static_cast<int32_t>(s));
  plan.credits.assign(plan.cuts.size(), credits);
  return plan;
}

StageCost CostMs(double forward, double input_grad, double weight_grad, double optimize) {
  return {forward / 1e3, input_grad / 1e3, weight_grad / 1e3, optimize / 1e3};
}

void WriteRun(const SyntheticRun& run, const std::string& dir) {
  RunWriter(run, dir).Write();
  if (!run.decisions.empty()) WriteFile(absl::StrCat(dir, "/decisions.jsonl"), run.decisions);
}

}  // namespace smartpipe::testutil
