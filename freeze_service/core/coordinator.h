// The pure heart of the FreezeService: events in, decisions out.
//
// No network, clock, disk, thread or random source. Same options, events and times give the same
// decisions, byte for byte, so every run can be replayed and every incident is a test.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "freeze_service/core/coordinator_state.h"
#include "freeze_service/core/events.h"
#include "freeze_service/core/evidence.h"
#include "freeze_service/core/policy.h"
#include "freeze_service/core/verdict_history.h"
#include "pipeline/partition.h"
#include "pipeline/plan.h"
#include "services/base/ids.h"

namespace smartpipe {

struct RecoveryOptions {
  bool enabled = true;        // false = a lost worker ends the run
  int32_t max_restarts = 10;  // ends of generations within kRestartWindow; one more ends the run
};
constexpr absl::Duration kRestartWindow = absl::Hours(1);

struct CoordinatorOptions : ExecutionOptions {
  int32_t num_microbatches = 4;
  std::string statistic = "norm";
  PolicyOptions policy;
  RecoveryOptions recovery;
};

/// What an order would do.
struct OrderPreview {
  OrderAccepted accepted;
  // What its boundary would get if nothing were learned any more; nothing = no verdict is part of
  // it.
  std::optional<Verdict> verdict;
};

/// Decides freezes, cuts and membership of one run.
///
/// Protocol (DESIGN section 4): joins until num_workers() workers are there -> StartGeneration,
/// then the verdicts of boundaries 0 and 1; when all reports of interval i are in -> the one
/// verdict of boundary i+2, while i+2 is a boundary of the run. What freezes depends on gradient
/// statistics and config alone; measured times only move cuts.
///
/// A lost worker, or a fault that one reports, ends the generation: all join again, and the next
/// one goes on from the newest checkpoint that every member has and whose intervals are all
/// reported. An interval that was decided before is not decided again: its boundary's verdict keeps
/// the frontier, and its cuts are planned anew. A worker that fails by itself ends the run.
///
/// An operator's order is carried out by the verdict of one boundary; its answer, OrderAccepted,
/// says which. One that is repeated with its request_id decides nothing.
///
/// Threads: not thread-safe, the caller locks.
class Coordinator {
 public:
  static absl::StatusOr<std::unique_ptr<Coordinator>> Create(const CoordinatorOptions& options);
  /// One that goes on where another was: `snapshot` is that one's Snapshot(), `verdicts` its
  /// verdicts.  Errors: also INVALID_ARGUMENT when these do not fit each other or the options.
  static absl::StatusOr<std::unique_ptr<Coordinator>> Restore(const CoordinatorOptions& options,
                                                              CoordinatorState snapshot,
                                                              VerdictHistory verdicts);
  virtual ~Coordinator() = default;

  /// Changes state and returns decisions, or returns an error and changes nothing.
  /// Errors: INVALID_ARGUMENT (unknown layer, wrong layer count, negative or NaN time, differing
  /// layer lists), NOT_FOUND (unknown worker), FAILED_PRECONDITION (stale generation or plan epoch,
  /// run not running), ALREADY_EXISTS (id in use, or this interval already reported: a repeated
  /// equal report is OK and decides nothing). A NaN gradient norm is evidence of trouble, not a bad
  /// request: it is accepted and never freezes anything.
  virtual absl::StatusOr<std::vector<Decision>> Apply(const Event& event, absl::Time now) = 0;

  virtual RunState state() const = 0;
  /// "2 of 4 workers: w0, w2; waiting for 2 more" while waiting; the end's reason at the end.
  virtual std::string state_message() const = 0;
  virtual Generation generation() const = 0;
  virtual const ExecutionOptions& execution() const = 0;
  virtual const RunHistory& history() const = 0;
  virtual const Orders& orders() const = 0;
  /// The newest one.
  virtual const PolicyOptions& policy() const = 0;
  /// A dry run of an order.  Errors: as Apply would give.  Cost: that of planning.
  virtual absl::StatusOr<OrderPreview> Preview(const OrderGiven& given) const = 0;
  /// Of a worker that has joined; nothing if it has not.
  virtual std::optional<int64_t> MemberIncarnation(const WorkerId& worker) const = 0;
  /// The newest decided plan; nothing before the start.
  virtual const std::optional<Plan>& plan() const = 0;
  virtual const VerdictHistory& verdicts() const = 0;
  /// What verdicts are based on: no layers before the start, then their newest measured costs.
  virtual const Evidence& evidence() const = 0;
  /// What the planner is asked now: newest costs, links, newest frontier. Requires a start.
  virtual PlannerInput planner_input() const = 0;
  /// From the first join on; zeros before.
  virtual const RunLength& length() const = 0;
  /// Work of the whole run without freezing over its work with the frontiers decided so far: the
  /// largest speed-up that this run's freezing admits, however it is cut. 1.0 when nothing froze.
  /// The newest frontier is taken to stay until the end.
  virtual double SpeedupLimitOfRun() const = 0;
  /// Everything but options and verdicts.  Cost: a copy, O(workers * layers).
  virtual CoordinatorState Snapshot() const = 0;
  /// The whole state as text, one fact a line: equal states give equal text. For tests and incident
  /// reports.
  virtual std::string Dump() const = 0;
};

}  // namespace smartpipe
