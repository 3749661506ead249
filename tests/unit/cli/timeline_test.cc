#include "cli/timeline.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "cli/commands.h"
#include "cli/explain_command.h"
#include "cli/perfetto.h"
#include "cli/timeline_command.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/testutil/process.h"
#include "tests/unit/cli/synthetic_run.h"

namespace smartpipe {
namespace {

using testing::HasSubstr;
using testing::SizeIs;
using testutil::CostMs;
using testutil::MakePlan;
using testutil::SyntheticRun;

// Freezes at step 20, moves layers at step 40.
SyntheticRun Switching() {
  SyntheticRun run;
  run.stretches = {{.plan = MakePlan(0, {4}), .costs = {CostMs(2, 0, 3, 1), CostMs(3, 3, 3, 1)}},
                   {.plan = MakePlan(2, {4}), .costs = {CostMs(2, 0, 1, 1), CostMs(3, 3, 3, 1)}},
                   {.plan = MakePlan(5, {5}),
                    .costs = {CostMs(2, 0, 0), CostMs(1, 0, 3, 1)},
                    .verdict_wait_s = 3e-3,
                    .drain_s = 2e-3,
                    .move_s = 4e-3}};
  for (int i = 0; i < 3; ++i) run.stretches[i].plan.plan_epoch = i;
  run.decisions =
      R"({"type":"verdict","step":40,"verdict":"plan","plan_epoch":2,"frontier":5,"cuts":[5],"reason":"moves \"conv\""})"
      "\n";
  return run;
}

class TimelineTest : public testing::Test {
 protected:
  absl::StatusOr<RunTrace> Load(const SyntheticRun& run) {
    testutil::WriteRun(run, dir_.path());
    return LoadRunTrace(dir_.path());
  }
  const testutil::TempDir dir_;
};

TEST_F(TimelineTest, ShowsTheFirstMoveElseTheFirstFreezingElseTheMiddle) {
  SyntheticRun spec = Switching();
  absl::StatusOr<RunTrace> run = Load(spec);
  ASSERT_TRUE(run.ok()) << run.status();
  StepWindow window = InterestingSteps(*run);
  EXPECT_EQ(window.first_step, 39);
  EXPECT_EQ(window.end_step, 42);
  EXPECT_EQ(window.why, "the first move of layers, at step 40");
  spec.stretches.pop_back();
  run = Load(spec);
  ASSERT_TRUE(run.ok()) << run.status();
  window = InterestingSteps(*run);
  EXPECT_EQ(window.first_step, 19);
  EXPECT_EQ(window.why, "the first freezing, at step 20");
  spec.stretches.pop_back();
  run = Load(spec);
  ASSERT_TRUE(run.ok()) << run.status();
  window = InterestingSteps(*run);
  EXPECT_EQ(window.first_step, 9);
  EXPECT_EQ(window.end_step, 12);
}

TEST_F(TimelineTest, Steps) {
  const absl::StatusOr<RunTrace> run = Load(Switching());
  ASSERT_TRUE(run.ok()) << run.status();
  const auto parse = [&](const char* text) { return ParseSteps(*run, text); };
  EXPECT_EQ(parse("5:9")->end_step, 9);
  EXPECT_EQ(parse("5")->end_step, 6);
  EXPECT_EQ(parse("50:900")->end_step, 60);
  for (const char* bad : {"", "a", "9:5", "5:5", "1:2:3", "-1:2", "5:", "99999999999999999999"})
    EXPECT_THAT(std::string(parse(bad).status().message()), HasSubstr("is not A:B")) << bad;
  EXPECT_THAT(std::string(parse("60:70").status().message()), HasSubstr("has steps 0 to 59"));
}

TEST_F(TimelineTest, Picture) {
  const absl::StatusOr<RunTrace> run = Load(Switching());
  ASSERT_TRUE(run.ok()) << run.status();
  const absl::StatusOr<Picture> picture = TimelinePicture(*run, InterestingSteps(*run));
  ASSERT_TRUE(picture.ok()) << picture.status();
  ASSERT_THAT(picture->rows, SizeIs(2));
  EXPECT_EQ(picture->rows[0].name, "w0, rank 0");
  EXPECT_EQ(picture->rows[0].note, "layers 0-3, then 0-4 frozen");
  ASSERT_THAT(picture->marks, SizeIs(3));
  EXPECT_EQ(picture->marks[0].label, "step 39");
  EXPECT_EQ(picture->marks[1].label, "step 40, plan 2: frontier 2 -> 5, cut 4 -> 5");
  EXPECT_THAT(picture->subtitle, HasSubstr("Step 40: moves \"conv\"."));
  EXPECT_EQ(picture->begin, 0);
  std::map<BoxKind, int> counts;
  int num_frozen = 0, most_ahead = 0;
  for (const PictureBox& box : picture->boxes) {
    EXPECT_GE(box.start, 0);
    EXPECT_LE(box.end, picture->end);
    EXPECT_LT(box.start, box.end);
    ++counts[box.kind];
    num_frozen += box.frozen;
  }
  EXPECT_EQ(counts[BoxKind::kPause], 6) << "three on each worker";
  EXPECT_EQ(counts[BoxKind::kBackward], 2 * 4 + 2 * 4) << "stage 0 of steps 40 and 41 is frozen";
  EXPECT_GE(num_frozen, 2 * 4) << "it runs ahead";
  for (const PictureBox& box : picture->boxes) {
    if (box.kind != BoxKind::kForward) {
      EXPECT_EQ(box.steps_ahead, 0) << box.tip;
      continue;
    }
    const int shown =
        39 + (box.start >= picture->marks[1].at) + (box.start >= picture->marks[2].at);
    EXPECT_THAT(box.tip,
                HasSubstr(absl::StrCat("F", box.label, " of step ", shown + box.steps_ahead)));
    most_ahead = std::max(most_ahead, box.steps_ahead);
  }
  EXPECT_EQ(most_ahead, 2) << "worker 0, frozen, in step 41";
  EXPECT_THAT(TimelineText(*run, InterestingSteps(*run)), HasSubstr("steps 39 to 41"));
}

TEST_F(TimelineTest, SeveralStagesOnAWorker) {
  SyntheticRun spec;
  spec.stretches = {{.plan = MakePlan(0, {2, 4, 6}, 4, "interleaved_1f1b"),
                     .costs = std::vector<StageCost>(4, CostMs(2, 1, 1, 1))}};
  spec.stretches[0].plan.stage_to_rank = {0, 1, 0, 1};
  const absl::StatusOr<RunTrace> run = Load(spec);
  ASSERT_TRUE(run.ok()) << run.status();
  const absl::StatusOr<Picture> picture = TimelinePicture(*run, InterestingSteps(*run));
  ASSERT_TRUE(picture.ok()) << picture.status();
  ASSERT_THAT(picture->rows, SizeIs(2));
  std::set<std::string> labels;
  for (const PictureBox& box : picture->boxes) labels.insert(box.label);
  EXPECT_THAT(labels, testing::IsSupersetOf({"2F0", "3F3"}));
}

TEST_F(TimelineTest, Perfetto) {
  const absl::StatusOr<RunTrace> run = Load(Switching());
  ASSERT_TRUE(run.ok()) << run.status();
  const std::string path = dir_.File("trace.json");
  const absl::StatusOr<PerfettoResult> result =
      WritePerfetto(*run, run->first_step, run->end_step, path);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->end_step, 60);
  const auto json = nlohmann::json::parse(testutil::ReadFile(path));
  const auto& events = json["traceEvents"];
  EXPECT_EQ(static_cast<int64_t>(events.size()), result->num_events);
  std::map<std::string, int> counts;
  std::map<int64_t, std::set<std::string>> arrows;                 // [id] of its ends
  std::map<std::pair<int, int>, std::map<double, double>> slices;  // [thread][start] end
  for (const auto& event : events) {
    const std::string kind = event["ph"];
    ++counts[kind];
    if (kind == "s" || kind == "f") {
      EXPECT_TRUE(arrows[event["id"]].insert(kind).second);
    }
    if (kind != "X") continue;
    const double start = event["ts"], duration = event["dur"];
    const bool is_new =
        slices[{event["pid"], event["tid"]}].emplace(start, start + duration).second;
    EXPECT_TRUE(is_new || duration == 0) << event;
  }
  EXPECT_EQ(counts["i"], 1);
  EXPECT_EQ(counts["s"], 40 * 8 + 20 * 4) << "gradients in the first 40 steps only";
  for (const auto& [id, ends] : arrows) EXPECT_THAT(ends, SizeIs(2)) << id;
  for (const auto& [thread, by_start] : slices) {
    double last_end = -1;
    for (const auto& [start, end] : by_start) {
      EXPECT_GE(start, last_end - 1e-6) << "no slice reaches into the next";
      last_end = end;
    }
  }
}

TEST_F(TimelineTest, PerfettoStopsBeforeItGetsTooLarge) {
  const absl::StatusOr<RunTrace> run = Load(Switching());
  ASSERT_TRUE(run.ok()) << run.status();
  const std::string path = dir_.File("trace.json");
  const absl::StatusOr<PerfettoResult> result = WritePerfetto(*run, 10, 60, path, 60'000);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_GT(result->end_step, 11);
  EXPECT_LT(result->end_step, 30);
  const std::string text = testutil::ReadFile(path);
  EXPECT_EQ(static_cast<int64_t>(text.size()), result->bytes);
  EXPECT_LE(text.size(), 60'000u);
  EXPECT_TRUE(nlohmann::json::accept(text));
  EXPECT_FALSE(WritePerfetto(*run, 0, 60, dir_.File("no/trace.json")).ok());
  EXPECT_FALSE(WritePerfetto(*run, 0, 60, "/dev/full/x").ok());
}

TEST_F(TimelineTest, Commands) {
  testutil::WriteRun(Switching(), dir_.path());
  const std::string svg = dir_.File("p.svg"), json = dir_.File("p.json");
  EXPECT_EQ(TimelineCommand({.run_dir = dir_.path(), .svg_path = svg, .perfetto_path = json}),
            kExitFinished);
  EXPECT_THAT(testutil::ReadFile(svg), HasSubstr("</svg>"));
  EXPECT_TRUE(nlohmann::json::accept(testutil::ReadFile(json)));
  for (const std::string& same : {dir_.File("same"), dir_.File("x/../same")}) {
    EXPECT_EQ(TimelineCommand(
                  {.run_dir = dir_.path(), .svg_path = dir_.File("same"), .perfetto_path = same}),
              kExitUsage);
  }
  EXPECT_FALSE(std::filesystem::exists(dir_.File("same")));
  EXPECT_EQ(TimelineCommand({.run_dir = dir_.path()}), kExitFinished);
  EXPECT_EQ(TimelineCommand({.run_dir = dir_.path(), .steps = "x"}), kExitUsage);
  EXPECT_EQ(TimelineCommand({.run_dir = dir_.File("no")}), kExitUsage);
  EXPECT_EQ(TimelineCommand({.run_dir = dir_.path(), .svg_path = dir_.File("no/p.svg")}),
            kExitFailed);
  EXPECT_EQ(ExplainCommand({.run_dir = dir_.path()}), kExitFinished);
  EXPECT_EQ(ExplainCommand({.run_dir = dir_.path(), .json = true}), kExitFinished);
  EXPECT_EQ(ExplainCommand({.run_dir = dir_.File("no")}), kExitUsage);
}

}  // namespace
}  // namespace smartpipe
