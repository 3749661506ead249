// Notices a compute thread that stands still, and says where.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "worker/engine/position.h"

namespace smartpipe {

/// Watches one generation's compute thread from Start to its destruction.
///
/// A thread whose position does not change for `patience` has a dump written and `on_stuck` called,
/// which is to free it. One that has not left `leave_patience` after the generation's end cannot be
/// freed: the process is killed, so that another can take its place.  Threads: any.
class Watchdog {
 public:
  struct Options {
    absl::Duration patience;  // zero = never
    absl::Duration leave_patience = absl::Seconds(60);
    std::shared_ptr<const Position> position;
    std::string dump_path;
    std::function<bool()> may_stand_still;                  // true = it is meant to; null = never
    std::function<std::string()> describe;                  // the dump's text
    std::function<void(const absl::Status& why)> on_stuck;  // DEADLINE_EXCEEDED, for people
  };
  explicit Watchdog(const Options& options);
  /// The compute thread has left the generation.
  ~Watchdog();

  /// The generation is over, or the run; another worker's watchdog may be why: then a dump is
  /// written here, too.
  void Leaving(const absl::Status& why) ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  void Watch() ABSL_LOCKS_EXCLUDED(mutex_);
  void WriteDump(const absl::Status& why) const;

  const Options options_;
  absl::Mutex mutex_;
  bool left_ ABSL_GUARDED_BY(mutex_) = false;
  bool leaving_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace smartpipe
