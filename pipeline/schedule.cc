#include "pipeline/schedule.h"

#include <algorithm>
#include <iterator>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "pipeline/schedules/schedules.h"
#include "services/base/limits.h"
#include "services/base/nearest_name.h"
#include "services/base/status_macros.h"

namespace smartpipe {
namespace {

struct ScheduleRow {
  ScheduleTraits traits;
  CompileFunction compile;
};

constexpr ScheduleRow kSchedules[] = {
    {{.name = "gpipe",
      .title = "GPipe",
      .summary = "runs all forwards, then all backwards",
      .two_phases = true},
     CompileGpipe},
    {{.name = "1f1b",
      .title = "1F1B",
      .summary = "starts backwards early and keeps less in memory"},
     CompileOneFOneB},
    {{.name = "interleaved_1f1b",
      .title = "Interleaved 1F1B",
      .summary = "is 1f1b with several stages on each worker, for shorter fill and drain",
      .shares_ranks = true},
     CompileInterleaved},
};

absl::Status CheckRange(absl::string_view field, int32_t value, int32_t least, int32_t most) {
  if (least <= value && value <= most) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("shape.", field, " is ", value, ", not in ", least, "..", most));
}

absl::StatusOr<ScheduleRow> FindSchedule(absl::string_view name) {
  for (const ScheduleRow& row : kSchedules) {
    if (row.traits.name == name) return row;
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "unknown schedule `", name, "`; did you mean `", NearestName(name, ScheduleNames()),
      "`? There are: ", absl::StrJoin(ScheduleNames(), ", ")));
}

absl::Status RequireOneStagePerRank(const ScheduleShape& shape, absl::string_view schedule) {
  std::vector<int32_t> stage_of(shape.num_ranks(), -1);
  for (int32_t s = 0; s < shape.num_stages; ++s) {
    int32_t& stage = stage_of[shape.rank_of(s)];
    if (stage >= 0) {
      return absl::InvalidArgumentError(absl::StrCat(
          "schedule `", schedule, "` runs one stage per rank, but shape.stage_to_rank ",
          "gives rank ", shape.rank_of(s), " the stages ", stage, " and ", s));
    }
    stage = s;
  }
  return absl::OkStatus();
}

}  // namespace

int32_t ScheduleShape::num_ranks() const {
  return stage_to_rank.empty() ? num_stages : 1 + *absl::c_max_element(stage_to_rank);
}

absl::Status ValidateShape(const ScheduleShape& shape) {
  SP_RETURN_IF_ERROR(CheckRange("num_stages", shape.num_stages, 1, limits::kStagesMax));
  SP_RETURN_IF_ERROR(
      CheckRange("num_microbatches", shape.num_microbatches, 1, limits::kMicrobatchesMax));
  SP_RETURN_IF_ERROR(
      CheckRange("num_frozen_stages", shape.num_frozen_stages, 0, shape.num_stages - 1));
  if (shape.stage_to_rank.empty()) return absl::OkStatus();
  if (shape.stage_to_rank.size() != static_cast<size_t>(shape.num_stages)) {
    return absl::InvalidArgumentError(absl::StrCat("shape.stage_to_rank has ",
                                                   shape.stage_to_rank.size(), " entries for ",
                                                   shape.num_stages, " stages"));
  }
  for (int32_t s = 0; s < shape.num_stages; ++s) {
    SP_RETURN_IF_ERROR(CheckRange(absl::StrCat("stage_to_rank[", s, "]"), shape.stage_to_rank[s], 0,
                                  limits::kWorkersMax - 1));
  }
  return absl::OkStatus();
}

absl::StatusOr<ScheduleTraits> TraitsOf(absl::string_view schedule) {
  SP_ASSIGN_OR_RETURN(const ScheduleRow row, FindSchedule(schedule));
  return row.traits;
}

std::vector<ScheduleTraits> AllSchedules() {
  std::vector<ScheduleTraits> schedules;
  for (const ScheduleRow& row : kSchedules) schedules.push_back(row.traits);
  return schedules;
}

std::vector<std::string> ScheduleNames() {
  std::vector<std::string> names;
  for (const ScheduleRow& row : kSchedules) names.emplace_back(row.traits.name);
  return names;
}

absl::StatusOr<std::vector<Program>> Compile(const ScheduleShape& shape,
                                             absl::string_view schedule) {
  SP_RETURN_IF_ERROR(ValidateShape(shape));
  SP_ASSIGN_OR_RETURN(const ScheduleRow row, FindSchedule(schedule));
  if (!row.traits.shares_ranks) SP_RETURN_IF_ERROR(RequireOneStagePerRank(shape, schedule));
  return row.compile(shape);
}

absl::StatusOr<std::vector<Program>> MakePrograms(const ScheduleShape& shape,
                                                  absl::string_view schedule) {
  SP_ASSIGN_OR_RETURN(const std::vector<Program> compute, Compile(shape, schedule));
  SP_ASSIGN_OR_RETURN(std::vector<Program> programs, Lower(shape, compute));
  SP_RETURN_IF_ERROR(ValidatePrograms(shape, programs));
  return programs;
}

std::vector<int32_t> PeakInFlight(const ScheduleShape& shape,
                                  const std::vector<Program>& programs) {
  std::vector<int32_t> now(shape.num_stages, 0), peak(shape.num_stages, 0);
  for (const Program& program : programs) {
    for (const Instruction& instruction : program) {
      const int32_t s = instruction.stage.value();
      if (s < shape.num_frozen_stages) continue;
      if (instruction.op == Op::kForward) peak[s] = std::max(peak[s], ++now[s]);
      // With a split backward the activation is held until its weight gradient is there.
      if (instruction.op == Op::kBackward || instruction.op == Op::kWeightGrad) --now[s];
    }
  }
  return peak;
}

std::vector<int32_t> DefaultCredits(const ScheduleShape& shape, absl::string_view schedule,
                                    bool run_ahead) {
  ScheduleShape ahead = shape;  // its frozen stages are those that run ahead
  if (!run_ahead) ahead.num_frozen_stages = 0;
  std::vector<int32_t> credits(std::max(shape.num_stages - 1, 0), shape.num_microbatches);
  const absl::StatusOr<std::vector<Program>> compute = Compile(ahead, schedule);
  if (!compute.ok()) return credits;
  // What stage s sent and stage s+1 has not consumed has no backward at s yet.
  const std::vector<int32_t> peak = PeakInFlight(ahead, *compute);
  for (int32_t s = ahead.num_frozen_stages; s < shape.num_stages - 1; ++s) credits[s] = peak[s];
  return credits;
}

}  // namespace smartpipe
