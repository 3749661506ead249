#include "cli/run_trace.h"

#include <algorithm>
#include <filesystem>
#include <limits>
#include <map>
#include <set>
#include <system_error>
#include <tuple>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "cli/files.h"
#include "cli/worker_clock.h"
#include "nlohmann/json.hpp"
#include "services/base/limits.h"
#include "services/base/status_macros.h"

namespace smartpipe {
namespace {

using Json = nlohmann::json;

constexpr int64_t kDecisionBytesMax = int64_t{1} << 30;
constexpr int64_t kStepsMax = 5'000'000;  // more than a trace's file has room for

bool SamePlan(const TracePlan& a, const TracePlan& b) {
  return a.frontier == b.frontier && a.cuts == b.cuts && a.stage_to_rank == b.stage_to_rank &&
         a.credits == b.credits && a.schedule == b.schedule && a.plan_epoch == b.plan_epoch;
}

bool IsTrace(const std::filesystem::path& path) {
  const std::string name = path.filename().string();
  return absl::StartsWith(name, "trace-") && absl::EndsWith(name, ".jsonl");
}

// Folders right in `dir` that hold traces, as the runs of a demo do.
std::vector<std::string> RunsBelow(const std::string& dir) {
  std::vector<std::string> runs;
  std::error_code error;
  for (const auto& folder : std::filesystem::directory_iterator(dir, error)) {
    if (!folder.is_directory(error)) continue;
    const std::filesystem::directory_iterator entries(folder.path(), error);
    if (std::any_of(begin(entries), end(entries),
                    [](const auto& entry) { return IsTrace(entry.path()); })) {
      runs.push_back(folder.path().string());
    }
  }
  std::sort(runs.begin(), runs.end());
  return runs;
}

absl::StatusOr<std::vector<std::string>> TracePaths(const std::string& run_dir) {
  std::error_code error;
  if (!std::filesystem::is_directory(run_dir, error)) {
    return absl::NotFoundError(absl::StrCat(
        "there is no run directory ", run_dir,
        "; name the folder that `smartpipe train` printed and that holds config.toml"));
  }
  std::vector<std::string> paths;
  for (const auto& entry : std::filesystem::directory_iterator(run_dir, error)) {
    if (IsTrace(entry.path())) paths.push_back(entry.path().string());
  }
  if (error) {
    return absl::NotFoundError(absl::StrCat("cannot list ", run_dir, ": ", error.message()));
  }
  std::sort(paths.begin(), paths.end());
  if (!paths.empty()) return paths;
  if (const std::vector<std::string> runs = RunsBelow(run_dir); !runs.empty()) {
    return absl::NotFoundError(
        absl::StrCat(run_dir, " holds runs and is none; look into ", absl::StrJoin(runs, " or ")));
  }
  return absl::NotFoundError(absl::StrCat(
      run_dir,
      " has no trace-*.jsonl: train again with --set worker.trace=true (and of workers on "
      "other machines copy theirs here)"));
}

absl::Status OtherRun(const std::string& path, absl::string_view why) {
  return absl::InvalidArgumentError(
      absl::StrCat(path, " is of another run (", why, "); move it out of the folder"));
}

// What is the same in all traces of a run.
absl::Status CheckSameRun(const TraceHeader& first, const std::string& first_path,
                          const TraceHeader& header, const std::string& path) {
  const auto same = [&](absl::string_view name, int64_t a, int64_t b) {
    return a == b ? absl::OkStatus()
                  : OtherRun(path, absl::StrCat(name, " ", b, ", not ", a, " as in ", first_path));
  };
  SP_RETURN_IF_ERROR(same("number of ranks", first.num_ranks, header.num_ranks));
  SP_RETURN_IF_ERROR(same("number of layers", first.num_layers, header.num_layers));
  SP_RETURN_IF_ERROR(same("micro-batches", first.num_microbatches, header.num_microbatches));
  SP_RETURN_IF_ERROR(same("number of cores", first.num_cores, header.num_cores));
  SP_RETURN_IF_ERROR(same("interval", first.interval_steps, header.interval_steps));
  return same("batch size", first.batch_size, header.batch_size);
}

// Each generation writes its traces anew; workers that are no members any more leave theirs.
absl::StatusOr<std::vector<std::pair<std::string, Trace>>> ReadNewestGeneration(
    const std::vector<std::string>& paths, std::vector<std::string>* notes) {
  std::vector<std::pair<std::string, Trace>> traces;
  int64_t newest = 0;
  for (const std::string& path : paths) {
    SP_ASSIGN_OR_RETURN(Trace trace, ReadTrace(path));
    newest = std::max(newest, trace.header.generation);
    traces.emplace_back(path, std::move(trace));
  }
  std::erase_if(traces, [&](const std::pair<std::string, Trace>& entry) {
    const int64_t generation = entry.second.header.generation;
    if (generation == newest) return false;
    notes->push_back(absl::StrCat(entry.first, " is of generation ", generation, ", not of ",
                                  newest, ", the newest: it is left out"));
    return true;
  });
  return traces;
}

absl::StatusOr<WorkerTrace> Convert(Trace trace, const std::string& path) {
  WorkerTrace worker;
  worker.header = std::move(trace.header);
  worker.spans = std::move(trace.spans);
  worker.num_dropped = trace.num_dropped;
  for (size_t i = 0; i < trace.steps.size(); ++i) {
    TraceStep& step = trace.steps[i];
    RunStep& out = worker.steps.emplace_back();
    out.step = step.step;
    out.line = trace.step_lines[i];
    out.events.reserve(step.events.size());
    for (const TraceEvent& event : step.events) {
      const absl::StatusOr<Instruction> instruction = ParseInstruction(event.name);
      if (!instruction.ok()) {
        return absl::InvalidArgumentError(
            absl::StrCat(path, ":", out.line, ": ", instruction.status().message()));
      }
      const int32_t stage = instruction->stage.value(), mb = instruction->microbatch.value();
      if (stage < 0 || stage >= limits::kStagesMax || mb < 0 ||
          mb >= worker.header.num_microbatches) {
        return absl::InvalidArgumentError(
            absl::StrCat(path, ":", out.line, ": ", event.name, " is outside the pipeline"));
      }
      out.events.push_back({*instruction, event.start_ns, event.end_ns});
    }
    step.events = {};
  }
  std::stable_sort(worker.spans.begin(), worker.spans.end(),
                   [](const TraceSpan& a, const TraceSpan& b) { return a.step < b.step; });
  const auto by_step = [](const RunStep& a, const RunStep& b) { return a.step < b.step; };
  std::stable_sort(worker.steps.begin(), worker.steps.end(), by_step);
  const auto twice =
      std::adjacent_find(worker.steps.begin(), worker.steps.end(),
                         [](const RunStep& a, const RunStep& b) { return a.step == b.step; });
  if (twice != worker.steps.end()) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, " holds step ", twice->step, " twice; it is not one worker's trace"));
  }
  return worker;
}

absl::Status MergePlans(const std::vector<TracePlan>& plans, const std::string& path,
                        std::map<int64_t, TracePlan>* merged) {
  for (const TracePlan& plan : plans) {
    const auto [at, is_new] = merged->try_emplace(plan.step, plan);
    if (!is_new && !SamePlan(at->second, plan))
      return OtherRun(path, absl::StrCat("it has another plan at step ", plan.step));
  }
  return absl::OkStatus();
}

void ApplyClocks(const std::vector<std::vector<ClockReading>>& readings, RunTrace* run) {
  const WorkerClocks clocks = MakeClocks(readings);
  int64_t origin_ns = std::numeric_limits<int64_t>::max();
  for (size_t i = 0; i < run->workers.size(); ++i) {
    WorkerTrace& worker = run->workers[i];
    const WorkerClock& clock = clocks.clocks[i];
    const auto to_service = [&](int64_t* start_ns, int64_t* end_ns) {
      *start_ns = clock.ToServiceNs(*start_ns);
      *end_ns = clock.ToServiceNs(*end_ns);
      origin_ns = std::min(origin_ns, *start_ns);
    };
    if (!worker.steps.empty() && !worker.steps[worker.steps.size() / 2].events.empty()) {
      worker.offset_ns =
          clock.OffsetNs(worker.steps[worker.steps.size() / 2].events.front().start_ns);
    } else {
      worker.offset_ns = clock.OffsetNs(readings[i].empty() ? 0 : readings[i].front().local_ns);
    }
    for (RunStep& step : worker.steps) {
      for (RunEvent& event : step.events) to_service(&event.start_ns, &event.end_ns);
    }
    for (TraceSpan& span : worker.spans) to_service(&span.start_ns, &span.end_ns);
    worker.error_ns = clock.error_ns();
    worker.clock_measured = !readings[i].empty();
    if (clocks.same_as[i] != static_cast<int>(i))
      worker.same_clock_as = run->workers[clocks.same_as[i]].header.worker;
  }
  for (WorkerTrace& worker : run->workers) {
    for (RunStep& step : worker.steps) {
      for (RunEvent& event : step.events) event.start_ns -= origin_ns, event.end_ns -= origin_ns;
    }
    for (TraceSpan& span : worker.spans) span.start_ns -= origin_ns, span.end_ns -= origin_ns;
  }
}

// The fields that are read; a line that lacks some of them is another version's and reads as zeros.
RunDecision ParseDecision(const Json& json) {
  RunDecision decision;
  const auto number = [&json](const char* key, double otherwise) {
    const auto found = json.find(key);
    return found != json.end() && found->is_number() ? found->get<double>() : otherwise;
  };
  const auto whole = [&number](const char* key) {
    return static_cast<int64_t>(std::clamp(number(key, 0), 0.0, 1e15));
  };
  decision.step = whole("step");
  decision.plan_epoch = whole("plan_epoch");
  decision.frontier =
      static_cast<int32_t>(std::min<int64_t>(whole("frontier"), limits::kLayersMax));
  decision.is_plan = json.value("verdict", Json("")) == "plan";
  if (json.contains("cuts") && json["cuts"].is_array()) {
    for (const Json& cut : json["cuts"]) {
      if (cut.is_number_integer()) decision.cuts.push_back(cut.get<int32_t>());
    }
  }
  if (json.contains("moves") && json["moves"].is_array())
    decision.num_moves = static_cast<int32_t>(json["moves"].size());
  decision.moved_bytes = whole("moved_bytes");
  decision.predicted_old_step_s = number("predicted_old_step_s", 0);
  decision.predicted_step_s = number("predicted_step_s", 0);
  decision.even_step_s = number("even_step_s", 0);
  if (json.contains("reason") && json["reason"].is_string())
    decision.reason = json["reason"].get<std::string>();
  return decision;
}

absl::Status LoadDecisions(RunTrace* run) {
  const std::string path = absl::StrCat(run->run_dir, "/decisions.jsonl");
  const absl::StatusOr<std::string> text = ReadSmallFile(path, kDecisionBytesMax);
  if (absl::IsNotFound(text.status())) {
    run->notes.push_back(absl::StrCat(path, " is missing: no reasons and predictions are shown"));
    return absl::OkStatus();
  }
  SP_RETURN_IF_ERROR(text.status());
  const std::vector<absl::string_view> lines = absl::StrSplit(*text, '\n');
  std::map<int64_t, RunDecision> decisions;  // [step]
  for (size_t i = 0; i < lines.size(); ++i) {
    if (lines[i].empty()) continue;
    const Json json = Json::parse(lines[i].begin(), lines[i].end(), nullptr, false);
    const bool is_last = i + 1 == lines.size();  // no newline: the service was killed here
    if (!json.is_object() && is_last) {
      run->notes.push_back(absl::StrCat(path, " ends in mid-line: that decision is left out"));
      break;
    }
    if (!json.is_object()) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ":", i + 1, ": not a decision: it is not a JSON object"));
    }
    if (json.value("type", Json("")) != "verdict") continue;
    RunDecision decision = ParseDecision(json);
    // A later generation gives verdicts anew.
    decisions.insert_or_assign(decision.step, std::move(decision));
  }
  for (auto& [step, decision] : decisions) run->decisions.push_back(std::move(decision));
  return absl::OkStatus();
}

absl::Status CheckRanks(RunTrace* run, const std::map<std::string, std::string>& path_of) {
  std::sort(
      run->workers.begin(), run->workers.end(),
      [](const WorkerTrace& a, const WorkerTrace& b) { return a.header.rank < b.header.rank; });
  std::vector<std::string> missing;
  size_t next = 0;
  for (int rank = 0; rank < run->workers.front().header.num_ranks; ++rank) {
    if (next < run->workers.size() && run->workers[next].header.rank == rank) {
      ++next;
    } else {
      missing.push_back(absl::StrCat(rank));
    }
    if (next < run->workers.size() && run->workers[next].header.rank == rank) {
      return absl::InvalidArgumentError(
          absl::StrCat(path_of.at(run->workers[next - 1].header.worker), " and ",
                       path_of.at(run->workers[next].header.worker), " are both of rank ", rank,
                       ": one is of another run; move it out of the folder"));
    }
  }
  if (missing.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(run->run_dir, " lacks the trace of rank ", absl::StrJoin(missing, ", "), " of ",
                   run->workers.front().header.num_ranks,
                   "; copy the trace-*.jsonl of all workers' machines into it"));
}

// Each worker has run the stages that the plan in force gave it, and no other's.
absl::Status CheckStages(const RunTrace& run, const std::map<std::string, std::string>& path_of) {
  for (const WorkerTrace& worker : run.workers) {
    for (const RunStep& step : worker.steps) {
      const std::vector<int32_t>& ranks = run.PlanAt(step.step).stage_to_rank;
      for (const RunEvent& event : step.events) {
        const size_t stage = event.instruction.stage.value();
        if (stage < ranks.size() && ranks[stage] == worker.header.rank) continue;
        return absl::InvalidArgumentError(absl::StrCat(
            path_of.at(worker.header.worker), ":", step.line, ": it holds ",
            Format(event.instruction), " of step ", step.step, ", but ",
            stage < ranks.size() ? absl::StrCat("stage ", stage, " was rank ", ranks[stage], "'s")
                                 : absl::StrCat("there was no stage ", stage),
            " and this is the trace of rank ", worker.header.rank,
            ": files of two runs were mixed; copy the trace of ", worker.header.worker, " anew"));
      }
    }
  }
  return absl::OkStatus();
}

// Workers of one run wait for each other: each works while the first does.
absl::Status CheckOverlap(const RunTrace& run) {
  const auto range = [](const WorkerTrace& worker) {
    std::pair<int64_t, int64_t> ns(std::numeric_limits<int64_t>::max(), 0);
    for (const RunStep& step : worker.steps) {
      if (step.events.empty()) continue;
      ns.first = std::min(ns.first, step.events.front().start_ns);
      ns.second = std::max(ns.second, step.events.back().end_ns);
    }
    return ns;
  };
  const WorkerTrace& first = run.workers.front();
  const auto [first_start_ns, first_end_ns] = range(first);
  for (const WorkerTrace& worker : run.workers) {
    const auto [start_ns, end_ns] = range(worker);
    if (end_ns == 0 || first_end_ns == 0) continue;
    if (start_ns <= first_end_ns && first_start_ns <= end_ns) continue;
    return absl::InvalidArgumentError(absl::StrCat("the traces of ", first.header.worker, " and ",
                                                   worker.header.worker, " in ", run.run_dir,
                                                   " are of different times: one is of another run "
                                                   "(move it out of the folder), or was made on "
                                                   "a machine whose clock was never compared"));
  }
  return absl::OkStatus();
}

// Plans, steps and what is missing.
absl::Status Finish(std::map<int64_t, TracePlan> plans, RunTrace* run) {
  run->first_step = std::numeric_limits<int64_t>::max();
  for (const WorkerTrace& worker : run->workers) {
    if (worker.num_dropped > 0) {
      run->notes.push_back(absl::StrCat("the trace of ", worker.header.worker, " lacks ",
                                        worker.num_dropped, " lines that it had no room for"));
    }
    if (worker.steps.empty()) continue;
    run->first_step = std::min(run->first_step, worker.steps.front().step);
    run->end_step = std::max(run->end_step, worker.steps.back().step + 1);
  }
  if (run->end_step == 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the traces in ", run->run_dir, " hold no step: the run ended before its first"));
  }
  for (const WorkerTrace& worker : run->workers) {
    const int64_t end_step = worker.steps.empty() ? run->first_step : worker.steps.back().step + 1;
    if (end_step == run->end_step) continue;
    run->notes.push_back(absl::StrCat(
        "the trace of ", worker.header.worker,
        worker.steps.empty() ? " holds no step" : absl::StrCat(" ends at step ", end_step - 1),
        ", others go on to step ", run->end_step - 1, "; only steps that all workers have count"));
  }
  if (run->end_step - run->first_step > kStepsMax) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the traces in ", run->run_dir, " hold steps ", run->first_step, " and ", run->end_step - 1,
        ", too far apart for one run; was another one's mixed in?"));
  }
  if (plans.empty() || plans.begin()->first > run->first_step) {
    return absl::InvalidArgumentError(
        absl::StrCat("the traces in ", run->run_dir, " do not say which plan was in force at step ",
                     run->first_step, "; was a file cut at its beginning?"));
  }
  for (auto& [step, plan] : plans) run->plans.push_back(std::move(plan));
  return CheckOverlap(*run);
}

}  // namespace

const RunStep* WorkerTrace::FindStep(int64_t step) const {
  const auto found =
      std::lower_bound(steps.begin(), steps.end(), step,
                       [](const RunStep& a, int64_t wanted) { return a.step < wanted; });
  return found != steps.end() && found->step == step ? &*found : nullptr;
}

absl::Span<const TraceSpan> WorkerTrace::SpansBefore(int64_t step) const {
  const auto first =
      std::lower_bound(spans.begin(), spans.end(), step,
                       [](const TraceSpan& span, int64_t wanted) { return span.step < wanted; });
  const auto end =
      std::find_if(first, spans.end(), [step](const TraceSpan& span) { return span.step != step; });
  return absl::MakeConstSpan(spans).subspan(first - spans.begin(), end - first);
}

int RunTrace::PlanIndex(int64_t step) const {
  const auto after =
      std::upper_bound(plans.begin(), plans.end(), step,
                       [](int64_t wanted, const TracePlan& plan) { return wanted < plan.step; });
  return std::max(0, static_cast<int>(after - plans.begin()) - 1);
}

int64_t RunTrace::StepEndNs(int64_t step) const {
  const TracePlan& plan = PlanAt(step);
  std::set<int32_t> stages;  // with their optimizer
  int64_t end_ns = std::numeric_limits<int64_t>::min();
  size_t num_forwards = 0;
  for (const WorkerTrace& worker : workers) {
    const RunStep* found = worker.FindStep(step);
    if (found == nullptr) return -1;
    for (const RunEvent& event : found->events) {
      num_forwards += event.instruction.op == Op::kForward;
      if (event.instruction.op != Op::kOptimize) continue;
      stages.insert(event.instruction.stage.value());
      end_ns = std::max(end_ns, event.end_ns);
    }
  }
  if (num_forwards < (plan.cuts.size() + 1) * header().num_microbatches) return -1;
  for (size_t stage = 0; stage <= plan.cuts.size(); ++stage) {
    const bool frozen = stage < plan.cuts.size() && plan.cuts[stage] <= plan.frontier;
    if (!frozen && !stages.contains(static_cast<int32_t>(stage))) return -1;
  }
  return end_ns;
}

const RunDecision* RunTrace::DecisionOfPlan(const TracePlan& plan) const {
  for (const RunDecision& decision : decisions) {
    if (decision.is_plan && decision.plan_epoch == plan.plan_epoch && decision.step == plan.step)
      return &decision;
  }
  return nullptr;
}

absl::StatusOr<RunTrace> LoadRunTrace(const std::string& run_dir) {
  SP_ASSIGN_OR_RETURN(const std::vector<std::string> paths, TracePaths(run_dir));
  RunTrace run;
  run.run_dir = run_dir;
  std::map<int64_t, TracePlan> plans;
  std::map<std::string, std::string> path_of;                    // [worker]
  std::map<std::string, std::vector<ClockReading>> readings_of;  // [worker]
  SP_ASSIGN_OR_RETURN(auto traces, ReadNewestGeneration(paths, &run.notes));
  const std::string first_path = traces.front().first;
  for (auto& [path, trace] : traces) {
    if (!run.workers.empty()) {
      SP_RETURN_IF_ERROR(CheckSameRun(run.workers.front().header, first_path, trace.header, path));
    }
    if (!path_of.emplace(trace.header.worker, path).second)
      return OtherRun(path, absl::StrCat("there is another trace of ", trace.header.worker));
    SP_RETURN_IF_ERROR(MergePlans(trace.plans, path, &plans));
    readings_of[trace.header.worker] = trace.clock;
    SP_ASSIGN_OR_RETURN(WorkerTrace worker, Convert(std::move(trace), path));
    run.workers.push_back(std::move(worker));
  }
  SP_RETURN_IF_ERROR(CheckRanks(&run, path_of));
  std::vector<std::vector<ClockReading>> readings;
  for (const WorkerTrace& worker : run.workers)
    readings.push_back(readings_of[worker.header.worker]);
  ApplyClocks(readings, &run);
  SP_RETURN_IF_ERROR(Finish(std::move(plans), &run));
  SP_RETURN_IF_ERROR(CheckStages(run, path_of));
  SP_RETURN_IF_ERROR(LoadDecisions(&run));
  return run;
}

}  // namespace smartpipe
