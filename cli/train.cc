#include "cli/train.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <system_error>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "cli/connection.h"
#include "cli/files.h"
#include "cli/launcher.h"
#include "cli/monitor.h"
#include "cli/resume.h"
#include "services/base/status_macros.h"
#include "services/rpc/channel.h"

namespace smartpipe {
namespace {

constexpr absl::Duration kPollPeriod = absl::Milliseconds(250);
// When a process ends, its neighbours and a Ctrl-C of the terminal are close behind; their order
// says nothing.
constexpr absl::Duration kBlamePeriod = absl::Milliseconds(300);
constexpr absl::Duration kExitPatience = absl::Seconds(5);
// For a process that runs, but does not answer; for one that has to open its stream again.
constexpr absl::Duration kStuckAfter = absl::Seconds(10);
constexpr absl::Duration kRejoinPatience = absl::Seconds(5);

// One run's processes and their monitor.
class LocalRun {
 public:
  LocalRun(const CheckedConfig& checked, const std::string& run_dir, const std::string& resume,
           Display& display)
      : checked_(checked), run_dir_(run_dir), resume_(resume), display_(display) {}

  absl::StatusOr<RunResult> Run() {
    SP_ASSIGN_OR_RETURN(const std::string programs, ProgramFolder());
    const RunConfig& config = checked_.config;
    const auto listen = [](const AddressConfig& address) {
      return address.address.empty() ? std::string("127.0.0.1:0") : address.address;
    };
    const TlsFiles tls = TlsFilesOf(config);
    SP_ASSIGN_OR_RETURN(
        launcher_,
        Launcher::Create(
            {.parameter_program = programs + "/parameter_service",
             .service_program = programs + "/freeze_service",
             .worker_program = programs + "/stage_worker",
             .run_dir = run_dir_,
             .num_cores = CoresForWorkers(),
             .num_workers = config.pipeline.num_workers(),
             .use_gpus = config.worker.device == "cuda",
             .service_listen = listen(config.service),
             .parameter_listen = listen(config.parameter_service),
             .tls_flags = TlsFlags(tls),
             .resume = resume_,
             .max_restarts = config.recovery.enabled ? config.recovery.max_restarts : 0}));
    const absl::Time start = absl::Now();
    if (absl::Status status = launcher_->StartAll(); !status.ok()) return End(status);
    monitor_ = std::make_unique<RunMonitor>(
        v1::FreezeService::NewStub(
            MakeChannel({.address = launcher_->service_address(), .keepalive = {}, .tls = tls})),
        &display_, [this] { return StopAsked(); },
        EvaluationPlan{.every_epochs = checked_.config.eval.every_epochs,
                       .num_samples = checked_.num_test_samples});
    if (absl::Status status = Watch(); !status.ok()) return End(status);
    launcher_->StopAll();
    display_.Clear();
    return monitor_->Result(checked_.config, run_dir_, absl::Now() - start);
  }

 private:
  // Each worker keeps worker.threads cores busy, unless it leaves the work to a GPU of its own.
  int64_t CoresForWorkers() const {
    if (checked_.config.worker.device != "cpu") return 0;
    const int64_t num_cores = std::thread::hardware_concurrency();
    return std::max<int64_t>(1, num_cores / checked_.config.worker.threads);
  }

  // True when nothing more is wanted from the run.
  bool StopAsked() {
    launcher_->Wait(absl::ZeroDuration());
    return launcher_->num_stop_signals() > (stopping_ ? 1 : 0);
  }

  // The first stop signal asks for a checkpoint. CANCELLED: stop at once.
  absl::Status ActOnStop() {
    const int num_signals = launcher_->num_stop_signals();
    if (num_signals == 0 || (stopping_ && num_signals == 1)) return absl::OkStatus();
    if (stopping_ || !monitor_->StopAtBoundary(StopReason()).ok())
      return absl::CancelledError("stopped");
    stopping_ = true;
    display_.Print(
        "Stopping at the next boundary, behind a checkpoint; Ctrl-C again stops at once.");
    return absl::OkStatus();
  }

  std::string StopReason() const {
    const char* name = sigabbrev_np(launcher_->stop_signal());
    return absl::StrCat("SIG", name == nullptr ? "?" : name);
  }

  // A process that stands still is not noticed by the system: it is killed, and so replaced.
  void KillStuck(absl::Time now) {
    if (!checked_.config.recovery.enabled) return;
    const auto kill = [this](const std::string& name) {
      display_.Print(absl::StrCat(name, " does not answer: it is killed."));
      launcher_->Kill(name);
    };
    if (monitor_->silence(now) > kStuckAfter) {
      if (launcher_->HasRunFor("freeze_service", kStuckAfter)) kill("freeze_service");
      return;
    }
    const v1::Run& run = monitor_->run();
    if (run.state() != v1::RUN_STATE_WAITING || monitor_->silence(now) > kPollPeriod * 4) return;
    for (int64_t i = 0; i < checked_.config.pipeline.num_workers(); ++i) {
      const std::string name = absl::StrCat("w", i);
      const auto is_among = [&name](const auto& workers) {
        return std::find(workers.begin(), workers.end(), name) != workers.end();
      };
      if (is_among(run.connected_workers()) || is_among(run.drained_workers())) {
        unconnected_since_.erase(name);
        continue;
      }
      const absl::Time since = unconnected_since_.try_emplace(name, now).first->second;
      if (now - since < kRejoinPatience || !launcher_->HasRunFor(name, kStuckAfter)) continue;
      unconnected_since_.erase(name);
      kill(name);
    }
  }

  // That of a finished run, once it really goes on from an earlier step.
  void ForgetOldSummary() {
    if (resume_.empty() || monitor_->run().state() != v1::RUN_STATE_RUNNING) return;
    std::error_code ignored;
    std::filesystem::remove(run_dir_ + "/summary.json", ignored);
  }

  // Until the run is finished, all is known of it and all workers have gone.
  absl::Status Watch() {
    absl::Time deadline = absl::InfiniteFuture();
    for (;;) {
      launcher_->Wait(kPollPeriod);
      SP_RETURN_IF_ERROR(ActOnStop());
      const absl::Time now = absl::Now();
      if (!monitor_->finished()) monitor_->Poll(now);
      SP_RETURN_IF_ERROR(ActOnStop());
      ForgetOldSummary();
      // A generation that breaks while the run stops has no boundary to stop at any more.
      if (stopping_ && monitor_->run().state() == v1::RUN_STATE_WAITING)
        return absl::CancelledError("stopped");
      if (monitor_->finished()) {  // whatever ends now, or does not, the results are there
        if (launcher_->workers_done()) return absl::OkStatus();
        deadline = std::min(deadline, now + kExitPatience);
        const std::optional<LaunchFailure> failure = launcher_->FindFailure();
        if (now <= deadline && !failure) continue;
        display_.Print(failure ? absl::StrCat("The run is finished, but ", failure->process, " ",
                                              failure->how, ".")
                               : "The run is finished, but not all of its processes ended by "
                                 "themselves.");
        return absl::OkStatus();
      }
      if (monitor_->failed()) return absl::AbortedError("the run failed");
      if (monitor_->stopped()) return absl::CancelledError("stopped");
      if (!stopping_) {
        for (const std::string& sentence : launcher_->StartAgain())
          display_.PrintSentence(sentence);
        KillStuck(now);
      }
      if (launcher_->FindFailure()) return absl::AbortedError("a process ended");
      SP_RETURN_IF_ERROR(monitor_->Stuck(now));
      if (monitor_->run().state() != v1::RUN_STATE_FINISHED) continue;
      deadline = std::min(deadline, now + kExitPatience);
      if (now > deadline) {
        return absl::DeadlineExceededError(
            "the run is finished, but the service does not give all of its decisions");
      }
    }
  }

  // Stops everything and puts together what people should know.
  absl::Status End(const absl::Status& why) {
    const absl::Time blame_until = absl::Now() + kBlamePeriod;
    while (launcher_->stop_signal() == 0 && absl::Now() < blame_until) {
      launcher_->Wait(blame_until - absl::Now() + absl::Milliseconds(1));
    }
    if (monitor_ != nullptr && launcher_->stop_signal() == 0 && !IsOver())
      monitor_->Poll(absl::Now());
    // After the last poll, which may bring the service's sentence and see another exit; before
    // StopAll, whose own signals say nothing.
    const std::optional<LaunchFailure> failure = launcher_->FindFailure(ServiceSentence());
    display_.Clear();
    if (launcher_->stop_signal() == 0) {
      launcher_->StopAll();
      if (monitor_ != nullptr && monitor_->stopped()) {
        return absl::CancelledError(absl::StrCat("The run was ", monitor_->run().message(), ". ",
                                                 StartAgainText(), "\nFiles: ", run_dir_));
      }
    } else {
      if (!IsOver()) display_.Print(absl::StrCat("Stopping after ", StopReason(), " ..."));
      launcher_->StopAll();
      return absl::CancelledError(
          absl::StrCat("Stopped", StepText(), ". ", StartAgainText(), "\nFiles: ", run_dir_));
    }
    return absl::AbortedError(Explain(failure, why));
  }

  // The run, not only its processes.
  bool IsOver() const { return monitor_ != nullptr && (monitor_->failed() || monitor_->stopped()); }

  // Why the run failed, in the service's words; empty = it has not said so.
  std::string ServiceSentence() const {
    return monitor_ != nullptr && monitor_->failed() ? monitor_->run().message() : "";
  }

  std::string StepText() const {
    if (monitor_ == nullptr || monitor_->run().num_steps() == 0) return " before the first step";
    return absl::StrCat(" after step ", monitor_->run().step(), " of ",
                        monitor_->run().num_steps());
  }

  // What is left of the run, and how to go on.
  std::string StartAgainText() const {
    const std::string weights = run_dir_ + "/model.safetensors";
    std::error_code error;
    if (std::filesystem::exists(weights, error))
      return absl::StrCat("The weights of the last step are in ", weights, ".");
    const std::optional<Step> newest = NewestCheckpoint(run_dir_);
    return absl::StrCat(
        newest ? absl::StrCat("The newest checkpoint is of step ", newest->value(), ". ")
               : "There is no checkpoint yet. ",
        "The same command goes on ", newest ? "from it" : "from the start", " with --run-dir ",
        run_dir_, " --resume auto.");
  }

  // The stage of a worker, while ranks are known: one worker per stage, in order.
  std::string StageText(const std::string& log_path) const {
    if (monitor_ == nullptr) return "";
    for (int rank = 0; rank < monitor_->run().members_size(); ++rank) {
      if (absl::StrCat(run_dir_, "/logs/", monitor_->run().members(rank), ".log") == log_path) {
        return absl::StrCat(" (stage ", rank, ")");
      }
    }
    return "";
  }

  std::string Explain(const std::optional<LaunchFailure>& failure, const absl::Status& why) const {
    const std::string sentence = ServiceSentence();
    std::string text = absl::StrCat("The run failed", StepText(), ": ");
    if (failure) {
      const std::string exit =
          absl::StrCat(failure->process, StageText(failure->log_path), " ", failure->how, ".");
      // A signal tells the cause; an exit code only that the process knew one.
      if (sentence.empty()) {
        absl::StrAppend(&text, exit);
      } else if (failure->killed) {
        absl::StrAppend(&text, exit, "\nThe service says: ", sentence);
      } else {
        absl::StrAppend(&text, sentence, "\nThe process: ", exit);
      }
    } else {
      absl::StrAppend(&text, sentence.empty() ? std::string(why.message()) : sentence);
    }
    if (failure && !failure->last_words.empty()) {
      absl::StrAppend(&text, "\nLast lines of ", failure->log_path, ":");
      for (const std::string& line : failure->last_words) absl::StrAppend(&text, "\n  ", line);
    }
    absl::StrAppend(&text, "\nAll processes were stopped. ", StartAgainText());
    if (failure && failure->killed) {
      absl::StrAppend(&text,
                      "\nIf nobody sent that signal, the system may have, for lack of memory "
                      "(`dmesg` tells): fewer workers or a smaller train.batch_size need less.");
    }
    return absl::StrCat(text, "\nLogs: ", run_dir_, "/logs");
  }

  const CheckedConfig& checked_;
  const std::string run_dir_;
  const std::string resume_;
  Display& display_;
  bool stopping_ = false;                                // the service was asked to
  std::map<std::string, absl::Time> unconnected_since_;  // workers, while the run waits for them
  std::unique_ptr<Launcher> launcher_;
  std::unique_ptr<RunMonitor> monitor_;
};

}  // namespace

absl::StatusOr<RunResult> TrainLocally(const CheckedConfig& checked, const std::string& run_dir,
                                       const std::string& resume, Display& display) {
  SP_ASSIGN_OR_RETURN(RunResult result, LocalRun(checked, run_dir, resume, display).Run());
  SP_RETURN_IF_ERROR(WriteFileAtomically(run_dir + "/summary.json", SummaryJson(result)));
  return result;
}

}  // namespace smartpipe
