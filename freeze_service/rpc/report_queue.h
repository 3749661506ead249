// Reports on their way into the core, so that those which wait together are stored together.
#pragma once

#include <functional>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "freeze_service/core/events.h"

namespace smartpipe {

struct WaitingReport {
  IntervalReported report;
  std::function<void(const absl::Status&)> answer;  // called once, from the queue's thread
};

/// Hands reports on in the order in which they came, all that wait at once. While one batch is
/// being written to the disk the next one gathers: the more often reports come, the more share a
/// write.
///
/// Threads: Push from any; one of its own calls `take`.  Test: tests/component/freeze_service
class ReportQueue {
 public:
  /// `take` answers each report that it is given.
  explicit ReportQueue(std::function<void(std::vector<WaitingReport>)> take);
  /// Hands on what waits, then ends.
  ~ReportQueue();
  ReportQueue(const ReportQueue&) = delete;
  ReportQueue& operator=(const ReportQueue&) = delete;

  /// Never blocks. Beyond kReportsWaitingMax the report is answered RESOURCE_EXHAUSTED at once.
  void Push(WaitingReport report) ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  void TakeLoop() ABSL_LOCKS_EXCLUDED(mutex_);
  bool HasWork() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return closed_ || !waiting_.empty();
  }

  const std::function<void(std::vector<WaitingReport>)> take_;
  absl::Mutex mutex_;
  std::vector<WaitingReport> waiting_ ABSL_GUARDED_BY(mutex_);
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace smartpipe
