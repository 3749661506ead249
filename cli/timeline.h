// The measured pipeline as a picture: which steps to show, and what is in it.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "cli/picture.h"
#include "cli/run_trace.h"

namespace smartpipe {

/// Steps [first_step, end_step), and why these.
struct StepWindow {
  int64_t first_step = 0, end_step = 0;
  std::string why;  // "the first move of layers, at step 312"
};

/// About three steps around the first plan that moved layers, else the first that froze some, else
/// in the middle of the run.
StepWindow InterestingSteps(const RunTrace& run);

/// "312:315" = steps 312..314, "312" = that one.  Errors: INVALID_ARGUMENT for another text and for
/// steps that the run does not have, naming those that it has.
absl::StatusOr<StepWindow> ParseSteps(const RunTrace& run, absl::string_view text);

/// From the end of the step before the window to the end of its last one: what every worker did in
/// that time, also for later steps. Milliseconds from the window's start.
/// Errors: INVALID_ARGUMENT when nothing was traced then.
absl::StatusOr<Picture> TimelinePicture(const RunTrace& run, const StepWindow& window);

/// "plan 2: frontier 0 -> 2, cut 3 -> 4": what a plan changes.
std::string PlanChange(const RunTrace& run, int plan_index);

/// Summary in words: workers, steps, clocks, plans, and what a picture would show.
std::string TimelineText(const RunTrace& run, const StepWindow& window);

}  // namespace smartpipe
