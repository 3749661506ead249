// What the decisions of a run follow from besides its events.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "freeze_service/core/coordinator.h"
#include "services/config/run_config.h"

namespace smartpipe {

struct RunSettings {
  std::string config_toml;  // with every key, as ToToml writes it
  int32_t num_cores = 0;    // that all workers share; 0 = each has its own
  friend bool operator==(const RunSettings&, const RunSettings&) = default;
};

/// The core's view of them.  Errors: INVALID_ARGUMENT naming the key.  Threads: pure.
absl::StatusOr<CoordinatorOptions> MakeCoordinatorOptions(const RunSettings& settings);

/// What a difference between two settings means.
enum class Resuming {
  kNo,   // each one counts
  kYes,  // pipeline.*, rebalance.*, worker.*, addresses, tls.*, log keys and --cores may differ
};

/// The first setting that differs and counts: "pipeline.stages = 2 was recorded, now it is
/// pipeline.stages = 4"; empty when there is none.
std::string DifferenceOf(const RunSettings& recorded, const RunSettings& now, Resuming resuming);

}  // namespace smartpipe
