#include "cli/schedule_options.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "cli/option_check.h"
#include "pipeline/schedule.h"
#include "services/base/status_macros.h"

namespace smartpipe {
namespace {

std::string Alternatives(bool shares_ranks) {
  std::vector<absl::string_view> names;
  for (const ScheduleTraits& traits : AllSchedules()) {
    if (traits.shares_ranks == shares_ranks) names.push_back(traits.name);
  }
  return absl::StrJoin(names, " or ");
}

}  // namespace

std::string ScheduleChoices() { return absl::StrJoin(ScheduleNames(), "|"); }

absl::Status CheckScheduleOptions(const std::string& schedule, int stages, int stages_per_worker,
                                  int stages_max, absl::string_view why) {
  SP_RETURN_IF_ERROR(CheckWord("--schedule", schedule, ScheduleNames()));
  SP_RETURN_IF_ERROR(CheckOption("--stages", stages, 1, stages_max, why));
  SP_RETURN_IF_ERROR(CheckOption("--stages-per-worker", stages_per_worker, 1, stages));
  if (stages % stages_per_worker != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("--stages is ", stages, ", not a multiple of --stages-per-worker ",
                     stages_per_worker, "; each worker has equally many stages"));
  }
  SP_ASSIGN_OR_RETURN(const ScheduleTraits traits, TraitsOf(schedule));
  if (traits.shares_ranks == (stages_per_worker > 1)) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "--schedule ", schedule, " runs ", traits.shares_ranks ? "two or more stages" : "one stage",
      " on each worker, but --stages-per-worker is ", stages_per_worker, "; give ",
      traits.shares_ranks ? "at least 2" : "1", ", or --schedule ",
      Alternatives(!traits.shares_ranks)));
}

}  // namespace smartpipe
