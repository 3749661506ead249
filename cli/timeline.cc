#include "cli/timeline.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "cli/render.h"
#include "pipeline/plan.h"
#include "services/base/limits.h"

namespace smartpipe {
namespace {

constexpr int64_t kNumStepsShown = 3;
constexpr int64_t kBoxesMax = 200'000;  // beyond it no viewer draws the picture
constexpr int kWidth = 80;

double Ms(int64_t ns) { return static_cast<double>(ns) / 1e6; }

std::string CutsText(const RunTrace& run, const TracePlan& plan) {
  std::vector<LayerIndex> cuts;
  for (const int32_t cut : plan.cuts) cuts.push_back(LayerIndex(cut));
  return FormatCuts(cuts, run.header().num_layers, LayerIndex(plan.frontier));
}

bool IsFrozenStage(const TracePlan& plan, int stage) {
  return stage < static_cast<int>(plan.cuts.size()) && plan.cuts[stage] <= plan.frontier;
}

StepWindow Clamp(const RunTrace& run, int64_t first_step, std::string why) {
  const int64_t latest = std::max(run.first_step, run.end_step - kNumStepsShown);
  first_step = std::clamp(first_step, run.first_step, latest);
  return {first_step, std::min(run.end_step, first_step + kNumStepsShown), std::move(why)};
}

// "0-3 frozen, 8" of the stages that a rank has under a plan.
std::string LayersText(const RunTrace& run, const TracePlan& plan, int rank) {
  std::vector<std::string> ranges;
  for (size_t s = 0; s < plan.stage_to_rank.size(); ++s) {
    if (plan.stage_to_rank[s] != rank) continue;
    const int first = s == 0 ? 0 : plan.cuts[s - 1];
    const int last = (s < plan.cuts.size() ? plan.cuts[s] : run.header().num_layers) - 1;
    ranges.push_back(
        absl::StrCat(first == last ? absl::StrCat(first) : absl::StrCat(first, "-", last),
                     IsFrozenStage(plan, static_cast<int>(s)) ? " frozen" : ""));
  }
  return absl::StrJoin(ranges, ", ");
}

std::optional<BoxKind> KindOf(Op op) {
  switch (op) {
    case Op::kForward:
      return BoxKind::kForward;
    case Op::kBackward:
      return BoxKind::kBackward;
    case Op::kInputGrad:
      return BoxKind::kInputGrad;
    case Op::kWeightGrad:
      return BoxKind::kWeightGrad;
    case Op::kOptimize:
      return BoxKind::kOptimize;
    case Op::kSendForward:
    case Op::kSendBackward:
    case Op::kReduce:
      return BoxKind::kMessage;
    case Op::kRecvForward:
    case Op::kRecvBackward:
      return std::nullopt;  // a wait: what is seen of it is the bubble
  }
  return std::nullopt;
}

class PictureMaker {
 public:
  PictureMaker(const RunTrace& run, const StepWindow& window) : run_(run), window_(window) {}

  absl::StatusOr<Picture> Make() {
    FindTimes();
    if (end_ns_ <= begin_ns_) {
      return absl::InvalidArgumentError(absl::StrCat(
          "nothing was traced of steps ", window_.first_step, "-", window_.end_step - 1,
          "; the run has ", run_.first_step, "-", run_.end_step - 1));
    }
    picture_.unit = "ms";
    picture_.end = Ms(end_ns_ - begin_ns_);
    for (const WorkerTrace& worker : run_.workers) AddWorker(worker);
    if (static_cast<int64_t>(picture_.boxes.size()) > kBoxesMax) {
      return absl::InvalidArgumentError(
          absl::StrCat("steps ", window_.first_step, "-", window_.end_step - 1, " are ",
                       picture_.boxes.size(), " boxes, more than a viewer can draw (", kBoxesMax,
                       "); choose fewer with --steps A:B, or use --perfetto"));
    }
    AddMarks();
    AddTitle();
    return std::move(picture_);
  }

 private:
  void FindTimes() {
    begin_ns_ = std::numeric_limits<int64_t>::max();
    end_ns_ = std::numeric_limits<int64_t>::min();
    for (const WorkerTrace& worker : run_.workers) {
      for (int64_t step = window_.first_step; step < window_.end_step; ++step) {
        const RunStep* found = worker.FindStep(step);
        if (found == nullptr || found->events.empty()) continue;
        begin_ns_ = std::min(begin_ns_, found->events.front().start_ns);
        end_ns_ = std::max(end_ns_, found->events.back().end_ns);
      }
    }
    if (end_ns_ < begin_ns_) return;
    const int64_t before_ns =
        window_.first_step > run_.first_step ? run_.StepEndNs(window_.first_step - 1) : -1;
    if (before_ns >= 0) begin_ns_ = before_ns;
    const int64_t last_ns = run_.StepEndNs(window_.end_step - 1);
    if (last_ns >= 0) end_ns_ = last_ns;
    for (int64_t step = window_.first_step; step < window_.end_step; ++step)
      step_ends_ns_.push_back(run_.StepEndNs(step));
  }

  // How many steps later than the one in which it falls, by the marks.
  int StepsAhead(int64_t step, int64_t start_ns) const {
    const int64_t num_ended =
        std::count_if(step_ends_ns_.begin(), step_ends_ns_.end(),
                      [start_ns](int64_t end_ns) { return end_ns <= start_ns; });
    return static_cast<int>(std::max<int64_t>(0, step - window_.first_step - num_ended));
  }

  void AddWorker(const WorkerTrace& worker) {
    row_ = static_cast<int>(picture_.rows.size());
    busy_from_ns_ = end_ns_;
    busy_to_ns_ = begin_ns_;
    for (const RunStep& step : worker.steps) {
      if (step.events.empty() || step.events.front().start_ns >= end_ns_ ||
          step.events.back().end_ns <= begin_ns_) {
        continue;
      }
      for (const RunEvent& event : step.events) AddEvent(step.step, event);
    }
    for (const TraceSpan& span : worker.spans) {
      if (span.name == "barrier") continue;  // a wait for others, like a bubble
      std::string tip = absl::StrFormat("%s, %.2f ms, before step %d", span.name,
                                        Ms(span.end_ns - span.start_ns), span.step);
      AddBox(span.start_ns, span.end_ns,
             {.kind = BoxKind::kPause, .label = span.name, .tip = std::move(tip)});
    }
    const int rank = worker.header.rank;
    const std::string layers = LayersText(run_, run_.PlanAt(window_.first_step), rank);
    const std::string later = LayersText(run_, run_.PlanAt(window_.end_step - 1), rank);
    picture_.rows.push_back(
        {.name = absl::StrCat(worker.header.worker, ", rank ", rank),
         .note = absl::StrCat("layers ", layers, layers == later ? "" : ", then ",
                              layers == later ? "" : later),
         .first = busy_from_ns_ < busy_to_ns_ ? Ms(busy_from_ns_ - begin_ns_) : 0,
         .end = busy_from_ns_ < busy_to_ns_ ? Ms(busy_to_ns_ - begin_ns_) : 0});
  }

  void AddEvent(int64_t step, const RunEvent& event) {
    if (event.end_ns <= begin_ns_ || event.start_ns >= end_ns_) return;
    busy_from_ns_ = std::min(busy_from_ns_, std::max(event.start_ns, begin_ns_));
    busy_to_ns_ = std::max(busy_to_ns_, std::min(event.end_ns, end_ns_));
    const std::optional<BoxKind> kind = KindOf(event.instruction.op);
    if (!kind) return;
    const TracePlan& plan = run_.PlanAt(step);
    const int stage = event.instruction.stage.value();
    PictureBox box{.kind = *kind};
    if (HasMicrobatch(event.instruction.op) && IsCompute(event.instruction.op)) {
      const bool one_stage = plan.stage_to_rank.size() <= run_.workers.size();
      box.label = one_stage ? absl::StrCat(event.instruction.microbatch.value())
                            : Format(event.instruction);
    }
    box.tip =
        absl::StrFormat("%s of step %d, %.3f ms%s", Format(event.instruction), step, Ms(event.ns()),
                        *kind == BoxKind::kMessage ? " with the wait for its credit" : "");
    if (*kind == BoxKind::kForward) {
      box.frozen = IsFrozenStage(plan, stage);
      box.steps_ahead = StepsAhead(step, std::max(event.start_ns, begin_ns_));
    }
    AddBox(event.start_ns, event.end_ns, std::move(box));
  }

  // With its place, as far as it lies in the picture.
  void AddBox(int64_t start_ns, int64_t end_ns, PictureBox box) {
    start_ns = std::max(start_ns, begin_ns_);
    end_ns = std::min(end_ns, end_ns_);
    if (end_ns <= start_ns) return;
    box.row = row_;
    box.start = Ms(start_ns - begin_ns_);
    box.end = Ms(end_ns - begin_ns_);
    picture_.boxes.push_back(std::move(box));
  }

  // Where steps begin; with what a new plan changes.
  void AddMarks() {
    for (int64_t step = window_.first_step; step < window_.end_step; ++step) {
      const int64_t end_ns = step > run_.first_step ? run_.StepEndNs(step - 1) : -1;
      const int plan = run_.PlanIndex(step);
      const bool is_switch = run_.plans[plan].step == step && plan > 0;
      if (end_ns < begin_ns_ || end_ns > end_ns_) continue;
      picture_.marks.push_back(
          {.at = Ms(end_ns - begin_ns_),
           .label = is_switch ? absl::StrCat("step ", step, ", ", PlanChange(run_, plan))
                              : absl::StrCat("step ", step)});
    }
  }

  void AddTitle() {
    picture_.title = absl::StrFormat("Steps %d-%d of %s, measured", window_.first_step,
                                     window_.end_step - 1, run_.run_dir);
    std::vector<std::string> lines;
    for (size_t i = 0; i < run_.plans.size(); ++i) {
      const TracePlan& plan = run_.plans[i];
      if (i == 0 || plan.step < window_.first_step || plan.step >= window_.end_step) continue;
      const RunDecision* decision = run_.DecisionOfPlan(plan);
      if (decision != nullptr)
        lines.push_back(absl::StrCat("Step ", plan.step, ": ", decision->reason));
    }
    lines.push_back(absl::StrCat("Shown: ", window_.why,
                                 ". Dashed: a step's last optimizer ended. ", ClocksText()));
    picture_.subtitle = absl::StrJoin(lines, ". ");
  }

  std::string ClocksText() const {
    int64_t error_ns = 0;
    bool shared = true, measured = true;
    for (const WorkerTrace& worker : run_.workers) {
      error_ns = std::max(error_ns, worker.error_ns);
      measured &= worker.clock_measured;
      shared &= &worker == &run_.workers.front() ||
                worker.same_clock_as == run_.workers.front().header.worker;
    }
    if (shared && measured) return "All workers read the same machine's clock";
    if (!measured) return "Not all clocks were compared: right only on one machine";
    return absl::StrFormat("Clocks are right to %.3f ms", Ms(error_ns));
  }

  const RunTrace& run_;
  const StepWindow& window_;
  Picture picture_;
  int64_t begin_ns_ = 0, end_ns_ = 0;
  std::vector<int64_t> step_ends_ns_;  // of the window's steps
  int row_ = 0;
  int64_t busy_from_ns_ = 0, busy_to_ns_ = 0;
};

std::string ClockText(const WorkerTrace& worker) {
  if (!worker.clock_measured) {
    return absl::StrCat("clock never compared, taken to be ",
                        worker.same_clock_as.empty()
                            ? "the service's"
                            : absl::StrCat("that of ", worker.same_clock_as));
  }
  return absl::StrFormat(
      "clock + %.3f ms is the service's, give or take %.3f ms%s", Ms(worker.offset_ns),
      Ms(worker.error_ns),
      worker.same_clock_as.empty() ? "" : absl::StrCat("; same machine as ", worker.same_clock_as));
}

}  // namespace

std::string PlanChange(const RunTrace& run, int plan_index) {
  const TracePlan& plan = run.plans[plan_index];
  const TracePlan& before = run.plans[std::max(0, plan_index - 1)];
  std::vector<std::string> what;
  if (plan.frontier != before.frontier)
    what.push_back(absl::StrCat("frontier ", before.frontier, " -> ", plan.frontier));
  if (plan.cuts != before.cuts) {
    what.push_back(absl::StrCat(plan.cuts.size() > 1 ? "cuts " : "cut ",
                                absl::StrJoin(before.cuts, ","), " -> ",
                                absl::StrJoin(plan.cuts, ",")));
  }
  return absl::StrCat("plan ", plan.plan_epoch, what.empty() ? "" : ": ",
                      absl::StrJoin(what, ", "));
}

StepWindow InterestingSteps(const RunTrace& run) {
  const auto inside = [&run](const TracePlan& plan) {
    return run.first_step < plan.step && plan.step < run.end_step;
  };
  for (size_t i = 1; i < run.plans.size(); ++i) {
    if (inside(run.plans[i]) && run.plans[i].cuts != run.plans[i - 1].cuts) {
      const int64_t step = run.plans[i].step;
      return Clamp(run, step - 1, absl::StrCat("the first move of layers, at step ", step));
    }
  }
  for (size_t i = 1; i < run.plans.size(); ++i) {
    if (inside(run.plans[i]) && run.plans[i].frontier > run.plans[i - 1].frontier) {
      const int64_t step = run.plans[i].step;
      return Clamp(run, step - 1, absl::StrCat("the first freezing, at step ", step));
    }
  }
  return Clamp(run, run.first_step + (run.end_step - run.first_step) / 2 - 1,
               "the middle of the run, as no plan changes");
}

absl::StatusOr<StepWindow> ParseSteps(const RunTrace& run, absl::string_view text) {
  const std::vector<absl::string_view> parts = absl::StrSplit(text, ':');
  StepWindow window{.why = "as asked for"};
  const bool read = parts.size() <= 2 && absl::SimpleAtoi(parts[0], &window.first_step) &&
                    0 <= window.first_step && window.first_step <= limits::kStepsMax &&
                    (parts.size() == 1 || absl::SimpleAtoi(parts[1], &window.end_step));
  if (read && parts.size() == 1) window.end_step = window.first_step + 1;
  if (!read || window.end_step <= window.first_step) {
    return absl::InvalidArgumentError(
        absl::StrCat("--steps ", text, " is not A:B with A < B (steps A to B-1), or one step"));
  }
  window.first_step = std::max(window.first_step, run.first_step);
  window.end_step = std::min(window.end_step, run.end_step);
  if (window.end_step <= window.first_step) {
    return absl::InvalidArgumentError(absl::StrCat("--steps ", text, ": the run has steps ",
                                                   run.first_step, " to ", run.end_step - 1));
  }
  return window;
}

absl::StatusOr<Picture> TimelinePicture(const RunTrace& run, const StepWindow& window) {
  return PictureMaker(run, window).Make();
}

std::string TimelineText(const RunTrace& run, const StepWindow& window) {
  std::string out = absl::StrFormat("%s: %d %s, steps %d to %d\n", run.run_dir, run.workers.size(),
                                    run.workers.size() == 1 ? "worker" : "workers", run.first_step,
                                    run.end_step - 1);
  for (const WorkerTrace& worker : run.workers) {
    out.append(Wrap(absl::StrCat(worker.header.worker, ", rank ", worker.header.rank, ": ",
                                 worker.steps.size(), " steps; ", ClockText(worker)),
                    kWidth, 2));
  }
  out.append("Plans:\n");
  for (size_t i = 0; i < run.plans.size(); ++i) {
    const RunDecision* decision = run.DecisionOfPlan(run.plans[i]);
    out.append(Wrap(
        absl::StrCat("from step ", run.plans[i].step, ": ", CutsText(run, run.plans[i]),
                     decision == nullptr ? "" : "; ", decision == nullptr ? "" : decision->reason),
        kWidth, 2));
  }
  for (const std::string& note : run.notes)
    out.append(Wrap(absl::StrCat("Note: ", note, "."), kWidth, 0));
  out.append(
      Wrap(absl::StrCat("--svg FILE draws steps ", window.first_step, " to ", window.end_step - 1,
                        " (", window.why,
                        "); choose others with --steps A:B. --perfetto FILE writes all steps "
                        "for ui.perfetto.dev."),
           kWidth, 0));
  return out;
}

}  // namespace smartpipe
