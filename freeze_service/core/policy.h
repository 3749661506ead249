// Freezing policies: one small pure file each in freeze_service/core/policies/, one line in the
// table of policy.cc, one scenario in tests/scenario/policy/.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "services/base/ids.h"

namespace smartpipe {

/// Intervals of statistics that a policy can look back on.
inline constexpr int kEtaHistory = 16;

/// The freezing keys of the config, as the core sees them.
struct PolicyOptions {
  std::string policy = "smartpipe";
  double tau = 0.1;              // > 0
  double lambda_max = 0.5;       // (0, 1]
  int32_t warmup_intervals = 2;  // >= 0: statistics of intervals before this one decide nothing
  int32_t hits = 1;              // 1..kEtaHistory: intervals in a row that must agree
  int32_t min_trainable = 1;     // >= 1: last layers that never freeze, under any policy
  int32_t fixed_layers = 2;      // policy fixed
  std::vector<std::pair<Step, LayerIndex>> schedule;  // policy schedule; ascending
  friend bool operator==(const PolicyOptions&, const PolicyOptions&) = default;
};

/// What a policy may look at for the verdict of one boundary.
struct PolicyInput {
  int32_t num_layers = 0;
  std::vector<std::string> layer_names;  // [layer], for the reason
  LayerIndex frontier;                   // decided so far, for the boundary before this one
  IntervalIndex boundary;
  Step step;  // boundary * K
  int64_t steps_per_epoch = 0;
  IntervalIndex interval;  // newest interval with reports; -1 = none yet (boundaries 0 and 1)
  /// [layer] statistic of the newest intervals, oldest first, at most kEtaHistory; NaN = no
  /// evidence (frozen, no previous interval, zero or non-finite norm).
  std::vector<std::vector<double>> eta_history;
  /// [layer] why the newest entry is NaN, empty if it is a number: 'layer 3 "block2": gradient norm
  /// is NaN'.
  std::vector<std::string> no_evidence;
};

struct PolicyDecision {
  LayerIndex frontier;  // >= input.frontier; the caller caps it at num_layers - min_trainable
  std::string reason;   // why this frontier, with the numbers; also when nothing changes
};

class Policy {
 public:
  virtual ~Policy() = default;
  virtual PolicyDecision Decide(const PolicyInput& input) const = 0;
};

/// Errors: INVALID_ARGUMENT for an unknown name (all names given) or an option out of its range.
absl::StatusOr<std::unique_ptr<Policy>> MakePolicy(const PolicyOptions& options);
/// Names in the table, in order: "full", "fixed", "linear", "smartpipe", "schedule".
std::vector<std::string> PolicyNames();

}  // namespace smartpipe
