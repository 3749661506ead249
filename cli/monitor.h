// Follows a run through the service's GetRun and ListVerdicts, and shows it.
#pragma once

#include <algorithm>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "cli/display.h"
#include "cli/run_result.h"
#include "services/config/run_config.h"
#include "smartpipe/v1/freeze_service.grpc.pb.h"

namespace smartpipe {

/// When the workers evaluate, and on how much.
struct EvaluationPlan {
  int64_t every_epochs = 0;            // eval.every_epochs; at the end in any case
  std::optional<int64_t> num_samples;  // none = not known
};

/// Threads: one; each call blocks for at most kCallTimeout per request.  Test:
/// tests/component/cli/monitor_test.cc
class RunMonitor {
 public:
  static constexpr absl::Duration kCallTimeout = absl::Seconds(1);
  static constexpr absl::Duration kSilencePatience = absl::Seconds(60);
  static constexpr absl::Duration kJoinPatience = absl::Seconds(300);

  /// `display` must outlive the monitor. `stop_asked` (may be empty) is called before each further
  /// request of one Poll, which ends early when it returns true.
  RunMonitor(std::unique_ptr<v1::FreezeService::StubInterface> service, Display* display,
             std::function<bool()> stop_asked = nullptr, const EvaluationPlan& evaluations = {});

  /// Asks once, prints what is new (state, evaluations, decisions) and redraws the progress. A
  /// service that does not answer is no error here; after ten seconds of silence a line says so.
  void Poll(absl::Time now);

  /// Asks the service to stop the run at the next boundary.  Errors: FAILED_PRECONDITION when the
  /// run is not training; the call's.
  absl::Status StopAtBoundary(const std::string& reason);

  /// The newest state; empty before the first answer.
  const v1::Run& run() const { return run_; }
  /// DEADLINE_EXCEEDED when the service has not answered, or no worker has joined, for so long that
  /// nothing will come of it.
  absl::Status Stuck(absl::Time now) const;
  /// True when the run is finished and all its decisions are known here.
  bool finished() const {
    return run_.state() == v1::RUN_STATE_FINISHED && num_verdicts_seen_ >= run_.num_verdicts();
  }
  bool failed() const { return run_.state() == v1::RUN_STATE_FAILED; }
  bool stopped() const { return run_.state() == v1::RUN_STATE_STOPPED; }

  /// How long the service has not answered.
  absl::Duration silence(absl::Time now) const {
    return std::max(absl::ZeroDuration(), now - last_answer_);
  }

  /// The numbers of the finished run. Errors: INTERNAL when the service's answers lack some.
  absl::StatusOr<RunResult> Result(const RunConfig& config, const std::string& run_dir,
                                   absl::Duration total) const;

 private:
  absl::Status FetchDecisions();
  void ShowRun(absl::Time now);
  bool Evaluating() const;
  void PrintGeneration();
  void PrintDecision(const v1::Verdict& verdict);
  void PrintEvaluations(const v1::Run& run);
  Progress MakeProgress() const;

  std::unique_ptr<v1::FreezeService::StubInterface> service_;
  Display* display_;
  std::function<bool()> stop_asked_;
  EvaluationPlan evaluations_;
  v1::Run run_;
  std::vector<v1::Verdict> decisions_;  // changes only, by boundary
  int64_t num_verdicts_seen_ = 0;
  int64_t newest_printed_ = -1;  // boundary
  int64_t generation_ = 0;       // the newest one that was printed
  int64_t num_recoveries_ = 0;   // when it began
  int64_t frontier_ = 0;         // of the newest decision printed
  std::vector<int64_t> cuts_;
  bool has_cuts_ = false;
  absl::Time last_answer_ = absl::InfiniteFuture();
  absl::Time last_news_ = absl::InfiniteFuture();  // of what the run waits for, while it waits
  bool said_silent_ = false;
};

}  // namespace smartpipe
