// Where events and decisions go before anyone hears of them.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "freeze_service/core/coordinator_state.h"
#include "freeze_service/core/event_record.h"
#include "freeze_service/store/run_settings.h"

namespace smartpipe {

/// The coordinator's state behind the first `num_records` records.
struct StoredSnapshot {
  int64_t num_records = 0;
  CoordinatorState state;
};

/// Threads: calls are serialised by the caller.
class DecisionStore {
 public:
  virtual ~DecisionStore() = default;
  /// All together or none: durable (as far as this store is) when it returns OK. `snapshot`, of
  /// the state behind one of the records, replaces the older one; null = keep that.
  /// Errors: INVALID_ARGUMENT unless the first sequence is num_records() and the others follow; the
  /// disk's reason, after which the records may be there or not: the service must stop.
  /// Cost: one synced write, however many records.
  virtual absl::Status Append(absl::Span<const EventRecord> records,
                              const StoredSnapshot* snapshot) = 0;
  virtual int64_t num_records() const = 0;
  /// Calls `visit` with each record from `first` on, oldest first, until it returns an error, which
  /// is passed on.  Errors: also those of reading.
  virtual absl::Status Read(int64_t first,
                            const std::function<absl::Status(const EventRecord&)>& visit) const = 0;
  /// The newest verdict of a boundary, with the statistics by which it was decided first.
  /// Errors: NOT_FOUND; those of reading.  Cost: reads one record or two.
  virtual absl::StatusOr<Verdict> ReadVerdict(IntervalIndex boundary) const = 0;
  /// The newest snapshot; nothing when there is none that can be used.
  virtual std::optional<StoredSnapshot> ReadSnapshot() const = 0;
};

/// Keeps everything in memory only: the twin for tests.
std::unique_ptr<DecisionStore> MakeMemoryDecisionStore();

/// Errors: INVALID_ARGUMENT unless the records' sequences are next, next + 1, ...
absl::Status CheckSequences(absl::Span<const EventRecord> records, int64_t next);

struct OpenedDecisionStore {
  std::unique_ptr<DecisionStore> store;
  RunSettings first_settings;  // those that the first record follows from
  std::string repair;          // what was damaged and what was done about it; empty = nothing
};

/// The durable store: SQLite in RUN/decisions.db, each Append one synced transaction. Every record
/// has a digest, and all are checked here. Behind the first damaged record nothing is kept: the
/// whole ones go into a new database, the damaged files stay as decisions.db.damaged.
/// RUN/decisions.jsonl is a copy of the decisions for people and scripts, brought up to date here;
/// it also is the witness of records that the database has lost without a trace.
/// Settings that differ from the newest recorded ones where `resuming` allows it are recorded, too.
/// Errors: NOT_FOUND for a missing folder, PERMISSION_DENIED for one that cannot be written to,
/// FAILED_PRECONDITION when another process serves the run,
/// or with other settings than recorded, or by another version's format; DATA_LOSS when nothing can
/// be saved.  Cost: reads the whole log, about 0.5 s for 100,000 records.
absl::StatusOr<OpenedDecisionStore> OpenDecisionStore(const std::string& run_dir,
                                                      const RunSettings& settings,
                                                      Resuming resuming = Resuming::kNo);

struct RecordedRun {
  std::unique_ptr<const DecisionStore> store;  // the whole records
  RunSettings settings;                        // those that the first record follows from
  std::string damage;                          // what ends the whole records early; empty = nothing
};

/// The same for reading only, also while the run goes on; changes nothing.
absl::StatusOr<RecordedRun> OpenRecordedRun(const std::string& run_dir);

/// The JSON line of one decision, without newline.
std::string DecisionJson(int64_t sequence, absl::Time now, const Decision& decision);

}  // namespace smartpipe
