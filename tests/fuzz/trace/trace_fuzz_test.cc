// Smoke fuzz of `explain` and `timeline`: whatever the files of a run hold, they give a picture and
// an explanation, or a sentence.
#include <string>
#include <vector>

#include "cli/explain.h"
#include "cli/perfetto.h"
#include "cli/timeline.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/testutil/fuzz.h"
#include "tests/testutil/process.h"
#include "tests/unit/cli/synthetic_run.h"

namespace smartpipe {
namespace {

using testutil::CostMs;
using testutil::MakePlan;

constexpr int kRounds = 1500;

class TraceFuzzTest : public testutil::FuzzTest {
 protected:
  // Everything that the two commands do with a run directory; true if it could be read.
  bool Use() {
    const absl::StatusOr<RunTrace> run = LoadRunTrace(dir_.path());
    if (!run.ok()) {
      EXPECT_FALSE(run.status().message().empty());
      return false;
    }
    EXPECT_FALSE(TimelineText(*run, InterestingSteps(*run)).empty());
    const absl::StatusOr<Picture> picture = TimelinePicture(*run, InterestingSteps(*run));
    EXPECT_TRUE(picture.ok() ? !ToSvg(*picture).empty() : !picture.status().message().empty());
    const absl::StatusOr<PerfettoResult> perfetto =
        WritePerfetto(*run, run->first_step, run->end_step, dir_.File("perfetto.json"), 100'000);
    EXPECT_TRUE(perfetto.ok()) << perfetto.status();
    EXPECT_TRUE(nlohmann::json::accept(testutil::ReadFile(dir_.File("perfetto.json"))));
    const absl::StatusOr<Explanation> explanation = Explain(*run);
    if (!explanation.ok()) {
      EXPECT_FALSE(explanation.status().message().empty());
      return true;
    }
    EXPECT_FALSE(ExplanationText(*run, *explanation).empty());
    EXPECT_TRUE(nlohmann::json::accept(ExplanationJson(*run, *explanation)));
    return true;
  }

  const testutil::TempDir dir_;
};

TEST_F(TraceFuzzTest, EditedFiles) {
  testutil::SyntheticRun run;
  run.num_microbatches = 2;
  run.interval_steps = 4;
  run.num_cores = 1;
  run.clocks = {{.readings = {{.local_ns = 0, .error_ns = 1000}}},
                {.offset_ns = 90'000'000'000, .readings = {{.local_ns = 0, .error_ns = 1000}}}};
  run.stretches = {
      {.plan = MakePlan(0, {4}), .costs = {CostMs(2, 0, 3), CostMs(3, 3, 3)}, .num_steps = 4},
      {.plan = MakePlan(5, {5}),
       .costs = {CostMs(2, 0, 0), CostMs(1, 0, 3)},
       .num_steps = 4,
       .verdict_wait_s = 1e-3,
       .move_s = 1e-3}};
  run.stretches[1].plan.plan_epoch = 1;
  run.decisions =
      R"({"type":"verdict","step":4,"verdict":"plan","plan_epoch":1,"frontier":5,"cuts":[5],)"
      R"("predicted_step_s":0.03,"moved_bytes":1000,"moves":[{}],"reason":"moves"})"
      "\n";
  testutil::WriteRun(run, dir_.path());
  const std::vector<std::string> paths = {dir_.File("trace-w0.jsonl"), dir_.File("trace-w1.jsonl"),
                                          dir_.File("decisions.jsonl")};
  std::vector<std::string> good;
  for (const std::string& path : paths) good.push_back(testutil::ReadFile(path));
  const std::vector<std::string> tokens = {"0",  "9",  "-",  "000000000", "1152921504606846976",
                                           "[]", "{}", "\n", "null",      "1e300",
                                           "\"", ",",  "1",  "-1",        "\xff"};
  int num_read = 0;
  for (int i = 0; i < kRounds; ++i) {
    const size_t which = Below(paths.size());
    testutil::WriteFile(paths[which],
                        Edited(good[which], {.edits_max = 2, .copy_max = 60, .tokens = tokens}));
    num_read += Use();
    testutil::WriteFile(paths[which], good[which]);
  }
  EXPECT_TRUE(Use());
  EXPECT_GT(num_read, kRounds / 20) << "most edits are refused before anything is explained";
}

}  // namespace
}  // namespace smartpipe
