// Time as a dependency: code that needs "now" takes a Clock; tests give a ManualClock.
#pragma once

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace smartpipe {

/// Source of wall-clock time.  Threads: Now() may be called from any thread.
class Clock {
 public:
  virtual ~Clock() = default;
  virtual absl::Time Now() const = 0;
};

/// The machine's clock.
class SystemClock final : public Clock {
 public:
  absl::Time Now() const override { return absl::Now(); }
};

/// A clock that stands still until it is moved.  Threads: not safe against concurrent Advance().
class ManualClock final : public Clock {
 public:
  explicit ManualClock(absl::Time start = absl::UnixEpoch()) : now_(start) {}
  absl::Time Now() const override { return now_; }
  void Advance(absl::Duration by) { now_ += by; }

 private:
  absl::Time now_;
};

}  // namespace smartpipe
