// Runs as the durable log has them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "freeze_service/core/coordinator.h"
#include "freeze_service/store/decision_store.h"

namespace smartpipe::testutil {

/// Two workers, steps of 4 micro-batches, policy smartpipe, cuts that move.
RunSettings LogSettings();

/// Plays a run of 6 layers and `num_intervals` intervals from the first join to the end and appends
/// its 4 + 2 * num_intervals records, with a snapshot behind each `snapshot_every`-th (0 = none).
void RecordRun(int64_t num_intervals, int64_t snapshot_every, DecisionStore& store);

std::vector<EventRecord> ReadAll(const DecisionStore& store);

/// One line per record, with every field.
std::string Text(const EventRecord& record);
std::vector<std::string> Texts(const DecisionStore& store);

/// Copies records [first, end) of `from`, whose sequence must fit.
void Copy(const DecisionStore& from, int64_t first, int64_t end, DecisionStore& to);

}  // namespace smartpipe::testutil
