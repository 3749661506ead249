#include "cli/monitor.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "services/base/error_reason.h"
#include "services/base/limits.h"
#include "services/rpc/channel.h"
#include "services/rpc/status.h"

namespace smartpipe {
namespace {

constexpr absl::Duration kSilenceMax = absl::Seconds(10);

std::vector<int64_t> Cuts(const google::protobuf::RepeatedField<int32_t>& cuts) {
  return {cuts.begin(), cuts.end()};
}

}  // namespace

RunMonitor::RunMonitor(std::unique_ptr<v1::FreezeService::StubInterface> service, Display* display,
                       std::function<bool()> stop_asked, const EvaluationPlan& evaluations)
    : service_(std::move(service)),
      display_(display),
      stop_asked_(std::move(stop_asked)),
      evaluations_(evaluations) {}

absl::Status RunMonitor::Stuck(absl::Time now) const {
  if (now - last_answer_ > kSilencePatience) {
    return absl::DeadlineExceededError(
        absl::StrCat("the freeze service has not answered for ",
                     FormatDuration(absl::ToDoubleSeconds(kSilencePatience)),
                     "; it stands still or the machine is overloaded"));
  }
  if (run_.state() == v1::RUN_STATE_WAITING && now - last_news_ > kJoinPatience) {
    return absl::DeadlineExceededError(absl::StrCat(
        "no worker has joined for ", FormatDuration(absl::ToDoubleSeconds(kJoinPatience)), ": ",
        run_.message(), "; one stands still, or measuring the layers takes longer than that"));
  }
  return absl::OkStatus();
}

absl::Status RunMonitor::StopAtBoundary(const std::string& reason) {
  if (run_.state() != v1::RUN_STATE_RUNNING)
    return absl::FailedPreconditionError("the run is not training");
  grpc::ClientContext context;
  SetTimeout(context, kCallTimeout);
  v1::StopRequest request;
  request.set_reason(reason);
  v1::StopResponse response;
  const absl::Status status = FromGrpcStatus(service_->Stop(&context, request, &response));
  const std::optional<ErrorReason> refusal = ReasonOf(status);
  if (!refusal.has_value()) return status;
  // It ends by itself as soon, or somebody else has stopped it.
  if (refusal->reason == "NO_BOUNDARY_LEFT" || refusal->reason == "NOTHING_TO_DO")
    return absl::OkStatus();
  return status;
}

void RunMonitor::Poll(absl::Time now) {
  if (last_answer_ == absl::InfiniteFuture()) last_answer_ = now;
  grpc::ClientContext context;
  SetTimeout(context, kCallTimeout);
  v1::GetRunResponse response;
  const grpc::Status status = service_->GetRun(&context, v1::GetRunRequest(), &response);
  if (!status.ok()) {
    if (now - last_answer_ < kSilenceMax || said_silent_) return;
    said_silent_ = true;
    display_->Print(absl::StrCat("The freeze service has not answered for ",
                                 FormatDuration(absl::ToDoubleSeconds(kSilenceMax)), ": ",
                                 status.error_message()));
    return;
  }
  last_answer_ = now;
  said_silent_ = false;
  const bool is_new = response.run().state() != v1::RUN_STATE_WAITING &&
                      (response.run().num_verdicts() > num_verdicts_seen_ ||
                       response.run().evaluations_size() > run_.evaluations_size());
  if (is_new) display_->ClearState();
  PrintEvaluations(response.run());
  if (last_news_ == absl::InfiniteFuture() || response.run().message() != run_.message()) {
    last_news_ = now;
  }
  run_ = std::move(*response.mutable_run());
  if (run_.state() == v1::RUN_STATE_WAITING) {
    display_->ShowState(
        absl::StrCat(run_.generation() == 0 ? "Measuring layer times" : "Getting ready to go on",
                     "; ready: ", run_.message()));
    return;
  }
  PrintGeneration();
  if (run_.num_verdicts() > num_verdicts_seen_ && FetchDecisions().ok())
    num_verdicts_seen_ = run_.num_verdicts();
  if (run_.state() == v1::RUN_STATE_RUNNING && run_.num_steps() > 0) ShowRun(now);
}

// What happened since: a resumption, or the loss of a worker.
void RunMonitor::PrintGeneration() {
  if (run_.generation() == generation_) return;
  const bool is_first = std::exchange(generation_, run_.generation()) == 0;
  if (run_.generation() == 1) return;
  num_verdicts_seen_ = 0;  // some are given anew
  const bool drained =
      std::exchange(num_recoveries_, run_.num_recoveries()) == run_.num_recoveries() && !is_first &&
      run_.drained_workers_size() > 0;
  if (drained) {
    display_->PrintSentence(
        absl::StrCat("Generation ", run_.generation(), " goes on from step ", run_.first_step(),
                     " without ", absl::StrJoin(run_.drained_workers(), ", "), ", as ordered."));
    return;
  }
  display_->PrintSentence(absl::StrCat(
      "Generation ", run_.generation(), is_first ? " goes on from step " : " goes back to step ",
      run_.first_step(), is_first || run_.last_fault().empty() ? "" : ": ",
      is_first ? "" : run_.last_fault(), "."));
}

void RunMonitor::ShowRun(absl::Time now) {
  if (run_.paused()) {
    display_->ShowState(
        absl::StrCat("step ", run_.step(), "/", run_.num_steps(), ": ", run_.message()));
  } else if (run_.step() == 0) {
    display_->ShowState("All workers are ready; the first step is running.");
  } else if (Evaluating()) {
    display_->ShowState(absl::StrCat("step ", run_.step(), "/", run_.num_steps(), ": evaluating ",
                                     evaluations_.num_samples
                                         ? absl::StrCat(*evaluations_.num_samples, " test samples")
                                         : "the test set"));
  } else if (run_.step() == run_.num_steps()) {
    display_->ShowState("All steps are done; the weights are being written.");
  } else {
    display_->ShowProgress(MakeProgress(), now);
  }
}

// The rule of the workers (worker/engine/trainer.cc), as the service is not told of a beginning.
bool RunMonitor::Evaluating() const {
  const int64_t every = evaluations_.every_epochs * run_.steps_per_epoch();
  const bool due = run_.step() == run_.num_steps() || (every > 0 && run_.step() % every == 0);
  return due && (run_.evaluations().empty() || run_.evaluations().rbegin()->step() < run_.step());
}

absl::Status RunMonitor::FetchDecisions() {
  std::vector<v1::Verdict> all;
  v1::ListVerdictsRequest request;
  request.set_page_size(limits::kDecisionPageMax);
  request.set_changes_only(true);
  do {
    if (stop_asked_ && stop_asked_()) return absl::CancelledError("stopped");
    grpc::ClientContext context;
    SetTimeout(context, kCallTimeout);
    v1::ListVerdictsResponse response;
    const grpc::Status status = service_->ListVerdicts(&context, request, &response);
    if (!status.ok()) return FromGrpcStatus(status);
    all.insert(all.end(), response.verdicts().begin(), response.verdicts().end());
    // A page may be shorter than asked for, even empty: only the token tells whether more follow.
    request.set_page_token(response.next_page_token());
  } while (!request.page_token().empty());
  for (const v1::Verdict& verdict : all) {
    // A later generation gives some anew, with the frontiers that they had.
    if (verdict.boundary() > newest_printed_) PrintDecision(verdict);
    newest_printed_ = std::max(newest_printed_, verdict.boundary());
  }
  decisions_ = std::move(all);
  return absl::OkStatus();
}

void RunMonitor::PrintDecision(const v1::Verdict& verdict) {
  // A move that was refused is worth a line; that the cuts are still the best is not.
  const bool is_ordered = verdict.stop() || verdict.checkpoint();
  if (!verdict.has_plan() && !is_ordered &&
      verdict.predicted_step_s() >= verdict.predicted_old_step_s())
    return;
  if (!has_cuts_) {  // the first plan's cuts are those in force before the first change
    cuts_ = Cuts(run_.current().cuts());
    has_cuts_ = true;
  }
  DecisionLine line{.step = verdict.step(),
                    .old_frontier = frontier_,
                    .frontier = verdict.frontier(),
                    .old_cuts = cuts_,
                    .cuts = Cuts(verdict.cuts()),
                    .reason = verdict.reason()};
  frontier_ = line.frontier;
  cuts_ = line.cuts;
  display_->PrintSentence(FormatDecision(line));
}

void RunMonitor::PrintEvaluations(const v1::Run& run) {
  for (int i = run_.evaluations_size(); i < run.evaluations_size(); ++i) {
    const v1::Evaluation& evaluation = run.evaluations(i);
    const double epoch =
        static_cast<double>(evaluation.step()) / std::max<int64_t>(1, run.steps_per_epoch());
    const bool whole = evaluation.step() % std::max<int64_t>(1, run.steps_per_epoch()) == 0;
    display_->Print(absl::StrFormat("%s (step %d): test accuracy %.2f %%, test loss %.3f",
                                    whole ? absl::StrFormat("epoch %.0f done", epoch)
                                          : absl::StrFormat("stopped at epoch %.2f", epoch),
                                    evaluation.step(), evaluation.accuracy() * 100,
                                    evaluation.loss()));
  }
}

Progress RunMonitor::MakeProgress() const {
  Progress progress{
      .step = run_.step(),
      .num_steps = run_.num_steps(),
      .steps_per_epoch = run_.steps_per_epoch(),
      .loss = run_.step() > 0 ? run_.loss() : std::numeric_limits<double>::quiet_NaN(),
      .samples_per_second = run_.samples_per_second(),
      .frontier = run_.current().frontier(),
      .num_layers = run_.layers_size(),
      .cuts = Cuts(run_.current().cuts())};
  if (run_.samples_per_second() > 0) {
    progress.eta_s = static_cast<double>((run_.num_steps() - run_.step()) * run_.batch_size()) /
                     run_.samples_per_second();
  }
  return progress;
}

absl::StatusOr<RunResult> RunMonitor::Result(const RunConfig& config, const std::string& run_dir,
                                             absl::Duration total) const {
  RunResult result{
      .policy = config.freeze.policy,
      .run_dir = run_dir,
      .steps = run_.step(),
      .epochs = static_cast<double>(run_.step()) / std::max<int64_t>(1, run_.steps_per_epoch()),
      .num_layers = run_.layers_size(),
      .num_stages = config.pipeline.stages,
      .frozen_layers = run_.current().frontier(),
      .rebalances = run_.num_rebalances(),
      .layers_moved = run_.num_layers_moved(),
      .train_loss = run_.train_loss(),
      .total_seconds = absl::ToDoubleSeconds(total),
      .speedup_limit = run_.speedup_limit(),
      .recoveries = run_.num_recoveries(),
      .generations = run_.generation()};
  if (run_.has_resumed_from_step()) result.resumed_from_step = run_.resumed_from_step();
  if (run_.evaluations_size() > 0) result.test_accuracy = run_.evaluations().rbegin()->accuracy();
  for (const v1::EndWorkerRequest& worker : run_.ended_workers()) {
    result.wall_seconds = std::max(result.wall_seconds, worker.train_s());
    result.verdict_wait_seconds = std::max(result.verdict_wait_seconds, worker.verdict_wait_s());
    result.switch_seconds = std::max(result.switch_seconds, worker.switch_s());
    result.report_seconds = std::max(result.report_seconds, worker.report_s());
    result.checkpoint_seconds = std::max(result.checkpoint_seconds, worker.checkpoint_s());
    result.checkpoint_bytes_written += worker.checkpoint_bytes_written();
    result.checkpoint_bytes_shared += worker.checkpoint_bytes_shared();
    if (worker.weights_sha256().empty()) continue;
    result.weights_sha256 = worker.weights_sha256();
  }
  // Workers know the time of their own generation only.
  if (result.generations > 1) result.wall_seconds = run_.step_seconds();
  if (result.weights_sha256.empty() || result.wall_seconds <= 0 ||
      result.steps < run_.num_steps()) {
    return absl::InternalError(
        absl::StrCat("the service says that the run is finished, but not all results are there (",
                     result.steps, " of ", run_.num_steps(), " steps, ", run_.ended_workers_size(),
                     " workers); see the logs"));
  }
  if (!finished()) {
    return absl::InternalError(absl::StrCat("the run is finished, but only ", num_verdicts_seen_,
                                            " of its ", run_.num_verdicts(),
                                            " decisions are known here; see the logs"));
  }
  result.samples_per_second =
      static_cast<double>(result.steps * run_.batch_size()) / result.wall_seconds;
  for (const v1::Verdict& verdict : decisions_) {
    if (verdict.step() >= result.steps) continue;  // decided, but the run ended before
    result.decisions.push_back({.step = verdict.step(),
                                .plan_epoch = verdict.plan_epoch(),
                                .frontier = verdict.frontier(),
                                .cuts = Cuts(verdict.cuts()),
                                .reason = verdict.reason()});
  }
  return result;
}

}  // namespace smartpipe
