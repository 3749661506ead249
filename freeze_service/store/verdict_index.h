// Where in the log the verdicts of a run are.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "freeze_service/core/event_record.h"
#include "freeze_service/core/events.h"
#include "services/base/ids.h"

namespace smartpipe {

/// Finds the newest verdict of a boundary among records of which it was told.
/// Threads: the caller locks.  Cost: 16 bytes for each boundary.
class VerdictIndex {
 public:
  using ReadRecord = absl::FunctionRef<absl::StatusOr<EventRecord>(int64_t sequence)>;

  /// Of each record, in their order.
  void Add(int64_t sequence, absl::Span<const Decision> decisions);
  /// The verdict, whole: its statistics are those of the one that decided the boundary first.
  /// Errors: NOT_FOUND; those of `read`, which is called once or twice.
  absl::StatusOr<Verdict> Read(IntervalIndex boundary, ReadRecord read) const;

 private:
  struct Records {  // sequences
    int64_t newest = 0;
    int64_t with_statistics = 0;
  };
  std::vector<Records> records_;  // [boundary]
};

}  // namespace smartpipe
