// The config knows schedules without the library that has them: the two must agree.
#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "pipeline/schedule.h"
#include "services/config/run_config.h"

namespace smartpipe {
namespace {

TEST(SchedulesTest, TheConfigKnowsEachScheduleAndHowManyStagesAWorkerRuns) {
  EXPECT_EQ(kScheduleNames, ScheduleNames());
  for (const ScheduleTraits& traits : AllSchedules()) {
    for (const int each : {1, 2}) {
      const auto config =
          ParseRunConfig(absl::StrCat("[pipeline]\nstages = 4\nstages_per_worker = ", each,
                                      "\nschedule = \"", traits.name, "\"\n"),
                         "c.toml");
      EXPECT_EQ(config.ok(), traits.shares_ranks == (each > 1)) << traits.name << " " << each;
    }
  }
}

}  // namespace
}  // namespace smartpipe
