// The worker's side of the control protocol: one session with the freeze service, for the life of
// one worker.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "services/base/ids.h"
#include "services/base/key_value_store.h"
#include "services/config/run_config.h"
#include "services/obs/trace_file.h"
#include "services/rpc/tls.h"
#include "worker/control/control_plane.h"
#include "worker/control/messages.h"

namespace smartpipe {

/// kOpen: it has not ended, or its service could not record how and goes on when it is started
/// again. kStopped: somebody stopped it, and nothing has failed. kFailed: only --resume opens it
/// again.
enum class RunEnd { kOpen, kFinished, kStopped, kFailed };

/// Owns everything gRPC of a worker, on threads of its own; the compute thread only meets it in
/// bounded queues and waits with a deadline.
///
/// Order of use: Start, WaitWelcome; for each generation AnnounceLayers, WaitAssignment, then for
/// each boundary WaitVerdict and Report, at last Finish, or LeaveGeneration when it cannot go on.
/// Fail when this worker has failed by itself. Destroying the session without Finish counts as this
/// worker's loss.
///
/// A service that is gone is waited for, decision_timeout long: calls and reports are repeated, the
/// stream is opened again, and the generation goes on.
///
/// The end of a generation: another worker was lost. Every wait and call of it returns ABORTED "the
/// generation ended: ...", key-value stores likewise, what was not reported is dropped, and
/// generation_over() is true until the next AnnounceLayers.
///
/// The end: as soon as the run ends, the service stays away or it refuses a message of ours, every
/// wait and every later call returns why, and so does every key-value store made here:
///
/// - ABORTED: the run ended, "the run has failed: w1 is lost: its connection broke"; in OnEnd it is
///   OK when all workers finished. run_end() tells how.
/// - UNAVAILABLE: "the freeze service at 127.0.0.1:1234 is gone: ...".
/// - Other codes: a refusal, with the service's own sentence.
///
/// Threads: all methods from any thread.  Test: tests/component/control/control_session_test.cc
class ControlSession : public ControlPlane {
 public:
  struct Options {
    std::string service_address;  // "127.0.0.1:1234"
    WorkerId worker;
    TlsFiles tls;  // none = plaintext
    absl::Duration connect_timeout = absl::Seconds(10);
    absl::Duration decision_timeout = absl::Seconds(60);  // until set_decision_timeout
  };

  /// Connects and opens the Join stream.
  /// Errors: UNAVAILABLE when nobody answers at the address within connect_timeout.
  static absl::StatusOr<std::unique_ptr<ControlSession>> Start(const Options& options);

  /// Waits for the config.  Errors: why the service refused this worker (ALREADY_EXISTS,
  /// INVALID_ARGUMENT), the end.
  virtual absl::StatusOr<RunWelcome> WaitWelcome() = 0;
  /// Ready for the next generation: says what the model looks like, how long the run is, and of
  /// which steps there are complete checkpoints, ascending. `shape` comes from MakeRunShape.
  /// Errors: INVALID_ARGUMENT when it differs from what the other workers said; the end.
  virtual absl::Status AnnounceLayers(const std::vector<LayerDescription>& layers,
                                      const RunShape& shape,
                                      const std::vector<Step>& checkpoints) = 0;
  /// Waits, without a time limit, until all wanted workers are there; logs what the service waits
  /// for.
  virtual absl::StatusOr<WorkerAssignment> WaitAssignment() = 0;

  /// The verdict of `boundary`; boundaries are asked for in ascending order, the same one may be
  /// asked again. Normally it is already here. A run that is paused is waited for without a limit.
  /// Errors: DEADLINE_EXCEEDED after `timeout`,
  /// FAILED_PRECONDITION for a boundary before the newest one asked for; the end (also when the
  /// verdict is here).
  virtual absl::StatusOr<WorkerVerdict> WaitVerdict(IntervalIndex boundary,
                                                    absl::Duration timeout) = 0;
  /// Same with the config's decision_timeout_s.
  absl::StatusOr<WorkerVerdict> WaitVerdict(IntervalIndex boundary) override = 0;
  /// True while the service holds the next verdict back on purpose.
  virtual bool is_paused() = 0;
  virtual void set_decision_timeout(absl::Duration timeout) = 0;

  /// Queued and sent by the control thread, repeated while the service is UNAVAILABLE. Blocks only
  /// while kReportsQueuedMax reports are unsent; dropped after the end. A refused report ends the
  /// session.
  void Report(IntervalReportInfo report) override = 0;
  /// Same, sent together at most every kProgressPeriod.
  void ReportStep(const StepProgressInfo& progress) override = 0;
  void ReportEvaluation(const EvaluationInfo& evaluation) override = 0;

  /// Waits until everything that was queued before is with the service, which keeps it.
  virtual absl::Status WaitReported() = 0;
  /// Sends everything queued, tells that this worker has done its steps, and waits for the end of
  /// the run, since it may be needed again. OK: the run is over.
  virtual absl::Status Finish(const WorkerResult& result) = 0;
  /// After a transfer failed or nothing came of a wait: returns OK when the generation is over,
  /// telling the service `why` if it does not know yet. Then AnnounceLayers may be called.  Errors:
  /// the end.
  virtual absl::Status LeaveGeneration(const absl::Status& why) = 0;
  /// True when the generation is over but the run is not, or will be within `wait`.
  virtual bool generation_over(absl::Duration wait = absl::ZeroDuration()) = 0;
  /// What is not sent yet and what was heard last, for people.
  virtual std::string DescribeQueues() = 0;
  /// How the run ended, by the service's word; kOpen = it has not, or the service stays away.
  virtual RunEnd run_end() = 0;
  /// Tells that this worker failed; best effort, at most 2 s. What is queued is dropped.
  virtual void Fail(const absl::Status& why) = 0;

  /// How the run ended, waiting for it up to `timeout`: OK = all workers finished.
  /// Errors: DEADLINE_EXCEEDED; the end.
  virtual absl::Status WaitEnd(absl::Duration timeout) = 0;
  /// `callback` is called exactly once, with why (OK = all workers finished): on a control thread
  /// when the generation or the run ends, or at once on this thread if it has already. It must not
  /// block and not destroy the session; one callback for each generation.
  virtual void OnEnd(std::function<void(const absl::Status& why)> callback) = 0;

  /// `callback` is called on a control thread for each reading of the service's clock, one per
  /// report, while the generation lasts. It must not block; one callback, before the first report.
  virtual void OnClock(std::function<void(const ClockReading&)> callback) = 0;

  /// Rendezvous store of one generation. It may outlive the session, which cancels it at the end.
  virtual std::shared_ptr<KeyValueStore> MakeKeyValueStore(Generation generation) = 0;

  static constexpr int kReportsQueuedMax = 16;
  static constexpr int kStepsQueuedMax = 4096;
  static constexpr absl::Duration kProgressPeriod = absl::Milliseconds(200);
};

}  // namespace smartpipe
