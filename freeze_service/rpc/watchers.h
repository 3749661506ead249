// Everyone who watches the run.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "freeze_service/rpc/message_stream.h"
#include "services/base/clock.h"
#include "smartpipe/v1/freeze_service.pb.h"

namespace smartpipe {

/// One open WatchRun stream.  Threads: any.
class WatchStream final : public MessageStream<v1::WatchRunResponse> {
 public:
  static std::shared_ptr<WatchStream> Create(absl::Duration step_period,
                                             std::function<void(WatchStream&)> on_gone);
  absl::Duration step_period() const { return step_period_; }

 private:
  WatchStream(absl::Duration step_period, std::function<void(WatchStream&)> on_gone);
  void OnBroken() override { on_gone_(*this); }

  const absl::Duration step_period_;
  const std::function<void(WatchStream&)> on_gone_;
};

/// Tells all watchers what happens, without ever waiting for one.  Threads: any.
class Watchers {
 public:
  /// `clock` must outlive it.
  explicit Watchers(const Clock* clock) : clock_(clock) {}

  /// A new watcher, whose first message is `run`. One beyond kWatchersMax is closed with
  /// RESOURCE_EXHAUSTED.
  std::shared_ptr<WatchStream> Add(absl::Duration step_period, v1::Run run)
      ABSL_LOCKS_EXCLUDED(mutex_);
  /// A stream that is closed at once.
  static std::shared_ptr<WatchStream> Refuse(const grpc::Status& status);
  void Tell(const v1::WatchRunResponse& message) ABSL_LOCKS_EXCLUDED(mutex_);
  /// To those only whose step period has passed.
  void TellStep(const v1::StepProgress& step) ABSL_LOCKS_EXCLUDED(mutex_);
  void TellNotice(const std::string& message) ABSL_LOCKS_EXCLUDED(mutex_);
  /// The last message; later watchers get it behind their first.
  void TellEnd(const v1::EndOfRun& end) ABSL_LOCKS_EXCLUDED(mutex_);
  size_t size() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  struct Watcher {
    std::shared_ptr<WatchStream> stream;
    absl::Time next_step = absl::InfinitePast();
  };

  const Clock* const clock_;
  mutable absl::Mutex mutex_;
  std::vector<Watcher> watchers_ ABSL_GUARDED_BY(mutex_);
  std::optional<v1::EndOfRun> end_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace smartpipe
