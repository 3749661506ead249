// Schedules as data: compile to compute programs, lower to sends and receives, validate.
//
// A new schedule is one file in pipeline/schedules/, one row in the table of pipeline/schedule.cc,
// and one test.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "pipeline/instruction.h"
#include "services/base/ids.h"

namespace smartpipe {

/// What a schedule needs to know of a plan; layers are out of its sight.
///
/// Every stage is in one of three states, front to back:
///   frozen     all its layers are below the frontier: forward only, no optimizer
///   boundary   the first stage with a trainable layer: backward, but sends no gradient upstream
///   trainable  sends the input's gradient to the stage before it
struct ScheduleShape {
  int32_t num_stages = 1;         // 1..limits::kStagesMax
  int32_t num_microbatches = 1;   // 1..limits::kMicrobatchesMax
  int32_t num_frozen_stages = 0;  // 0..num_stages-1
  // [stage]; identity when empty. Several stages may share a rank.
  std::vector<int32_t> stage_to_rank = {};

  int32_t rank_of(int32_t stage) const {
    return stage_to_rank.empty() ? stage : stage_to_rank[stage];
  }
  int32_t num_ranks() const;
};

/// INVALID_ARGUMENT naming the field, its value and its range.
absl::Status ValidateShape(const ScheduleShape& shape);

/// What is known of a schedule by its name alone; a row of the table.
struct ScheduleTraits {
  absl::string_view name;     // in configs, plans and options: "1f1b"
  absl::string_view title;    // in headlines: "1F1B"
  absl::string_view summary;  // in help: what it does, and what for
  bool shares_ranks = false;  // made for two or more stages on each rank; else a rank runs one
  bool two_phases = false;    // each stage runs all forwards of a step, then all backwards
};
/// Errors: INVALID_ARGUMENT for an unknown schedule (nearest name given).
absl::StatusOr<ScheduleTraits> TraitsOf(absl::string_view schedule);
/// The table, in order: "gpipe", "1f1b", "interleaved_1f1b".
std::vector<ScheduleTraits> AllSchedules();
/// Their names.
std::vector<std::string> ScheduleNames();

/// Compute instructions (F, B or I and W, OPT) per rank, without communication.
/// Errors: INVALID_ARGUMENT for a shape out of range or an unknown schedule (nearest name given).
/// Order contract, which the numerics rely on: at each stage forwards and backwards run in
/// micro-batch order 0..M-1.
absl::StatusOr<std::vector<Program>> Compile(const ScheduleShape& shape,
                                             absl::string_view schedule);

/// Adds SEND right after the compute that makes the data and RECV right before the one that reads
/// it: the best order for sends that never wait, and all that a simulation with such sends needs.
/// Edges inside a rank get none; no gradient crosses an edge into a frozen stage.
std::vector<Program> AddMessages(const ScheduleShape& shape, const std::vector<Program>& compute);

/// AddMessages, checked and made safe for sends that do wait. A replay with rendezvous sends then
/// finds where that order would deadlock (two neighbours that send to each other) and moves just
/// those receives forward, to the moment of their send. So all communication has one global order
/// of which every rank runs a subsequence: no deadlock, even with rendezvous sends.
/// Errors: FAILED_PRECONDITION with the grid when the compute programs cannot be played.
absl::StatusOr<std::vector<Program>> Lower(const ScheduleShape& shape,
                                           const std::vector<Program>& compute);

/// Compile, Lower, Validate. Cost: O(stages * microbatches).
absl::StatusOr<std::vector<Program>> MakePrograms(const ScheduleShape& shape,
                                                  absl::string_view schedule);

/// Checks lowered programs: each stage runs F once per micro-batch, trainable stages B (or I and W)
/// after F and in micro-batch order, frozen stages neither; every send has its receive in the same
/// order per directed edge; OPT last; nothing below the frontier; no deadlock with rendezvous
/// sends. The message shows the grid with the failing cell.
absl::Status ValidatePrograms(const ScheduleShape& shape, const std::vector<Program>& programs);

/// Most forwards without their backward at each stage, [num_stages]: what its memory holds. 0 at
/// frozen stages, which hold nothing.
std::vector<int32_t> PeakInFlight(const ScheduleShape& shape, const std::vector<Program>& programs);

/// Receive buffers to post on edge s -> s+1, [num_stages - 1]: for an edge that leaves a frozen
/// stage M (run-ahead depth), else the depth the schedule can use, at most M. Without a (known)
/// schedule M everywhere, which none exceeds. Without run-ahead frozen stages get no more than
/// trainable ones in their place.
std::vector<int32_t> DefaultCredits(const ScheduleShape& shape, absl::string_view schedule = "",
                                    bool run_ahead = true);

}  // namespace smartpipe
