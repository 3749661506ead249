// Shapes and helpers that the tests of this folder share.
#pragma once

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "pipeline/plan.h"
#include "pipeline/schedule.h"

namespace smartpipe {

inline ScheduleShape MakeShape(int num_stages, int num_microbatches, int num_frozen_stages = 0) {
  ScheduleShape shape;
  shape.num_stages = num_stages;
  shape.num_microbatches = num_microbatches;
  shape.num_frozen_stages = num_frozen_stages;
  return shape;
}

/// All with stages <= 6, micro-batches <= 8 and every number of frozen stages.
inline std::vector<ScheduleShape> AllSmallShapes() {
  std::vector<ScheduleShape> shapes;
  for (int stages = 1; stages <= 6; ++stages) {
    for (int microbatches = 1; microbatches <= 8; ++microbatches) {
      for (int frozen = 0; frozen < stages; ++frozen) {
        shapes.push_back(MakeShape(stages, microbatches, frozen));
      }
    }
  }
  return shapes;
}

/// The same for schedules with one stage per rank; for interleaved_1f1b also those of two to four
/// ranks with two and three stages each.
inline std::vector<ScheduleShape> SmallShapes(absl::string_view schedule) {
  std::vector<ScheduleShape> shapes = AllSmallShapes();
  if (schedule != "interleaved_1f1b") return shapes;
  for (int ranks = 2; ranks <= 4; ++ranks) {
    for (int stages = 2 * ranks; stages <= 3 * ranks; stages += ranks) {
      for (int microbatches = 1; microbatches <= 8; ++microbatches) {
        for (int frozen = 0; frozen < stages; ++frozen) {
          shapes.push_back(MakeShape(stages, microbatches, frozen));
          shapes.back().stage_to_rank = DealStages(stages, ranks);
        }
      }
    }
  }
  return shapes;
}

inline std::string Describe(const ScheduleShape& shape, absl::string_view schedule) {
  return absl::StrCat(schedule, " ranks=", shape.num_ranks(), " stages=", shape.num_stages,
                      " microbatches=", shape.num_microbatches,
                      " frozen=", shape.num_frozen_stages);
}

}  // namespace smartpipe
