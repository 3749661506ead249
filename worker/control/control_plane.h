// The FreezeService as the training loop sees it. ControlSession is the real one, tests script
// their own.
#pragma once

#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/control/messages.h"

namespace smartpipe {

/// Threads: called from the compute thread; nothing but WaitVerdict may block.
class ControlPlane {
 public:
  virtual ~ControlPlane() = default;
  /// The one verdict of `boundary`; asked for in ascending order. Blocks until it is there, at most
  /// decision_timeout_s.  Errors: DEADLINE_EXCEEDED, UNAVAILABLE (service lost), ABORTED (the run
  /// ended: why).
  virtual absl::StatusOr<WorkerVerdict> WaitVerdict(IntervalIndex boundary) = 0;
  /// The same if it is there already.
  virtual std::optional<WorkerVerdict> PeekVerdict(IntervalIndex boundary) = 0;
  virtual void Report(IntervalReportInfo report) = 0;
  virtual void ReportStep(const StepProgressInfo& progress) = 0;
  virtual void ReportEvaluation(const EvaluationInfo& evaluation) = 0;
};

}  // namespace smartpipe
