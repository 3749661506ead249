// How often one caller may call.
#pragma once

#include <algorithm>

#include "absl/time/time.h"

namespace smartpipe {

/// `per_second` calls a second over any length of time, that many at once.  Threads: the caller
/// locks.
class RateLimit {
 public:
  explicit RateLimit(double per_second) : per_second_(per_second), left_(per_second) {}

  /// False when there have been too many. A clock that goes back gives nothing.
  bool Take(absl::Time now) {
    if (now > last_) {
      if (last_ != absl::InfinitePast()) {
        left_ = std::min(per_second_, left_ + per_second_ * absl::ToDoubleSeconds(now - last_));
      }
      last_ = now;
    }
    if (left_ < 1) return false;
    left_ -= 1;
    return true;
  }

 private:
  double per_second_;
  double left_;
  absl::Time last_ = absl::InfinitePast();
};

}  // namespace smartpipe
