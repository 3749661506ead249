// A run's coordinator after a restart.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "freeze_service/core/coordinator.h"
#include "freeze_service/store/decision_store.h"

namespace smartpipe {

/// The coordinator behind the store's last record: from its snapshot, and the events after it, each
/// proven by Replay; a new one when the store is empty.
/// Errors: FAILED_PRECONDITION naming the first record whose decisions are others than recorded;
/// those of reading and of Coordinator::Create.
/// Cost: reads the log; decides again what was decided since the snapshot.
absl::StatusOr<std::unique_ptr<Coordinator>> RestoreCoordinator(const CoordinatorOptions& options,
                                                                const DecisionStore& store);

}  // namespace smartpipe
