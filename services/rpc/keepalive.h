// How soon a dead peer is noticed.
#pragma once

#include "absl/time/time.h"

namespace smartpipe {

/// A connection without traffic for `period` is pinged; without an answer within `timeout` it is
/// closed. A peer whose machine vanished or whose process stands still is so noticed after at most
/// period + timeout; a closed connection (killed process) at once.
struct KeepaliveOptions {
  absl::Duration period = absl::Seconds(2);
  absl::Duration timeout = absl::Seconds(4);
};

}  // namespace smartpipe
