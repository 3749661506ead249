#include "cli/simulate_command.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "cli/commands.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/testutil/process.h"

namespace smartpipe {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using Json = nlohmann::json;

SimulateArguments Paper(const std::string& schedule, int batch, int frozen_stages) {
  SimulateArguments arguments;
  arguments.schedule = schedule;
  arguments.stages = 4;
  arguments.samples = 6;
  arguments.batch = batch;
  arguments.frozen_stages = frozen_stages;
  return arguments;
}

Json Result(const SimulateArguments& arguments) {
  const auto played = PlayPipeline(arguments);
  EXPECT_TRUE(played.ok()) << played.status();
  if (!played.ok()) return {};
  return Json::parse(SimulateJson(arguments, *played));
}

TEST(SimulateCommandTest, JsonHasThePapersFigures) {
  struct Figure {
    const char* schedule;
    int batch, frozen_stages, time, bubbles;
    int step_time, step_bubbles;  // with --flush step
  };
  constexpr Figure kFigures[] = {
      {"gpipe", 6, 0, 18, 24, 18, 24}, {"1f1b", 6, 0, 18, 24, 18, 24},
      {"gpipe", 6, 2, 16, 9, 16, 9},   {"1f1b", 6, 2, 16, 9, 16, 9},
      {"gpipe", 3, 0, 24, 48, 24, 48}, {"1f1b", 3, 0, 20, 32, 24, 48},
      {"gpipe", 3, 2, 18, 13, 18, 13}, {"1f1b", 3, 2, 16, 10, 18, 13},
  };
  for (const Figure& figure : kFigures) {
    SimulateArguments arguments = Paper(figure.schedule, figure.batch, figure.frozen_stages);
    Json json = Result(arguments);
    EXPECT_TRUE(json["time"].is_number_integer());
    EXPECT_TRUE(json["bubbles"].is_number_integer());
    EXPECT_EQ(json["time"], figure.time) << json;
    EXPECT_EQ(json["bubbles"], figure.bubbles) << json;
    EXPECT_EQ(json["schedule"], figure.schedule);
    EXPECT_EQ(json["stages"], 4);
    EXPECT_EQ(json["samples"], 6);
    EXPECT_EQ(json["batch"], figure.batch);
    EXPECT_EQ(json["frozen_stages"], figure.frozen_stages);
    EXPECT_EQ(json["flush"], "none");
    EXPECT_EQ(json["stale_weights"], figure.time != figure.step_time);
    ASSERT_EQ(json["workers"].size(), 4u);
    int idle = 0;
    for (const Json& worker : json["workers"]) idle += worker["idle"].get<int>();
    EXPECT_EQ(idle, figure.bubbles);
    EXPECT_EQ(json["workers"][0]["frozen"], figure.frozen_stages > 0);
    EXPECT_EQ(json["workers"][0]["busy"], figure.frozen_stages > 0 ? 6 : 12);
    arguments.flush = "step";
    json = Result(arguments);
    EXPECT_EQ(json["time"], figure.step_time) << json;
    EXPECT_EQ(json["bubbles"], figure.step_bubbles) << json;
    EXPECT_EQ(json["stale_weights"], false);
  }
}

TEST(SimulateCommandTest, TextHasFiguresTimetableAndWhatTheyAreWorth) {
  const SimulateArguments arguments = Paper("1f1b", 3, 0);
  const std::string text = SimulateText(arguments, *PlayPipeline(arguments));
  EXPECT_THAT(text, HasSubstr("1F1B, 4 stages, 6 samples in batches of 3: time 20, bubbles 32\n"));
  EXPECT_THAT(text, HasSubstr("stage 0  F0 F1 F2 .  .  .  .  B0 F3 B1 F4 B2 F5 .  .  B3"));
  EXPECT_THAT(text, HasSubstr("stale weights"));
  EXPECT_THAT(text, HasSubstr("time 24, bubbles 48"));
  size_t start = 0;
  for (size_t end = text.find('\n'); end != text.npos; end = text.find('\n', start)) {
    EXPECT_LE(end - start, 80u);
    start = end + 1;
  }
  SimulateArguments wide = arguments;
  wide.samples = 60;
  EXPECT_THAT(SimulateText(wide, *PlayPipeline(wide)),
              AllOf(Not(HasSubstr("F0")),
                    HasSubstr("too wide for a terminal of 80 columns: use --svg FILE")));
  const SimulateArguments gpipe = Paper("gpipe", 3, 2);
  EXPECT_THAT(SimulateText(gpipe, *PlayPipeline(gpipe)), Not(HasSubstr("stale")));
}

TEST(SimulateCommandTest, SeveralStagesOnAWorker) {
  SimulateArguments arguments;
  arguments.schedule = "interleaved_1f1b";
  arguments.stages = 4;
  arguments.stages_per_worker = 2;
  arguments.samples = arguments.batch = 2;
  arguments.flush = "step";
  const auto played = PlayPipeline(arguments);
  ASSERT_TRUE(played.ok()) << played.status();
  const std::string text = SimulateText(arguments, *played);
  EXPECT_THAT(text, HasSubstr("Interleaved 1F1B, 4 stages on 2 workers, 2 samples in one batch: "
                              "time 10, bubbles 4\n"));
  EXPECT_THAT(text, HasSubstr("worker 0  0F0 0F1 2F0 2F1 .   2B0 .   2B1 0B0 0B1\n"));
  const Json json = Json::parse(SimulateJson(arguments, *played));
  EXPECT_EQ(json["stages_per_worker"], 2);
  EXPECT_EQ(json["time"], 10);
  ASSERT_EQ(json["workers"].size(), 2u);
  EXPECT_EQ(json["workers"][1]["stages"], Json({1, 3}));
  EXPECT_EQ(json["workers"][1]["busy"], 8);
  const auto svg = SimulateSvg(arguments, *played);
  ASSERT_TRUE(svg.ok()) << svg.status();
  EXPECT_THAT(*svg, HasSubstr("stages 1, 3"));
  EXPECT_THAT(*svg, HasSubstr("<title>stage 2: forward of sample 0, 2 to 3 slots</title>"));

  arguments.frozen_stages = 3;  // worker 0 only forwards
  EXPECT_EQ(Result(arguments)["workers"][0]["frozen"], true);
  EXPECT_EQ(Result(arguments)["workers"][1]["frozen"], false);
  arguments.flush = "none";
  EXPECT_THAT(PlayPipeline(arguments).status().message(),
              HasSubstr("but --stages-per-worker is 2; use --flush step"));
}

TEST(SimulateCommandTest, StagesMayHaveCosts) {
  testutil::TempDir dir;
  std::string stages;
  for (int i = 0; i < 4; ++i)
    absl::StrAppend(&stages, i ? "," : "",
                    R"({"forward_us": 10, "input_grad_us": 4.5, "weight_grad_us": 5.5})");
  testutil::WriteFile(dir.File("costs.json"), absl::StrCat("{\"stages\": [", stages, "]}"));
  SimulateArguments arguments = Paper("1f1b", 3, 2);
  arguments.costs_path = dir.File("costs.json");
  // The paper's units, ten times as long.
  Json json = Result(arguments);
  EXPECT_EQ(json["time"], 160);
  EXPECT_EQ(json["bubbles"], 100);
  EXPECT_EQ(json["unit"], "us");
  arguments.flush = "step";
  EXPECT_EQ(Result(arguments)["time"], 180);
  arguments.stages = 5;
  EXPECT_THAT(PlayPipeline(arguments).status().message(),
              HasSubstr("describes 4 stages, but --stages is 5"));
}

TEST(SimulateCommandTest, WrongOptionsAreNamed) {
  const auto message = [](const std::function<void(SimulateArguments&)>& breaks) {
    SimulateArguments arguments = Paper("1f1b", 3, 2);
    breaks(arguments);
    return std::string(PlayPipeline(arguments).status().message());
  };
  using Args = SimulateArguments;
  EXPECT_THAT(message([](Args& a) { a.schedule = "gpip"; }),
              HasSubstr("--schedule is \"gpip\", not one of gpipe, 1f1b, interleaved_1f1b; did you "
                        "mean \"gpipe\"?"));
  EXPECT_THAT(message([](Args& a) { a.flush = "steps"; }), HasSubstr("did you mean \"step\"?"));
  EXPECT_THAT(message([](Args& a) { a.stages = 257; }),
              HasSubstr("--stages is 257, not in 1..256"));
  EXPECT_THAT(message([](Args& a) { a.samples = 0; }), HasSubstr("--samples is 0"));
  EXPECT_THAT(message([](Args& a) { a.samples = 4097; }), HasSubstr("--samples is 4097"));
  EXPECT_THAT(message([](Args& a) { a.batch = -3; }), HasSubstr("--batch is -3"));
  EXPECT_THAT(message([](Args& a) { a.frozen_stages = 4; }), HasSubstr("--frozen-stages is 4"));
  EXPECT_THAT(message([](Args& a) {
                a.samples = 7;
                a.flush = "step";
              }),
              HasSubstr("use --samples 9 or 6, or --flush none"));
  EXPECT_THAT(message([](Args& a) {
                a.samples = 2;
                a.flush = "step";
              }),
              HasSubstr("use --samples 3, or --flush none"));
}

TEST(SimulateCommandTest, WritesAPicture) {
  testutil::TempDir dir;
  SimulateArguments arguments = Paper("gpipe", 3, 2);
  arguments.json = true;
  arguments.svg_path = dir.File("picture.svg");
  EXPECT_EQ(SimulateCommand(arguments), kExitFinished);
  const std::string svg = testutil::ReadFile(arguments.svg_path);
  EXPECT_THAT(svg, HasSubstr("GPipe, 4 stages (2 frozen), 6 samples in batches of 3"));
  EXPECT_THAT(svg, HasSubstr("<title>stage 2: backward of sample 0, 7 to 8 slots</title>"));
  arguments.svg_path = dir.File("missing/picture.svg");
  EXPECT_EQ(SimulateCommand(arguments), kExitUsage);
  arguments.svg_path = dir.File("large.svg");
  arguments.samples = 4096;
  EXPECT_EQ(SimulateCommand(arguments), kExitUsage);
}

TEST(SimulateCommandTest, TheLargestShapesArePlayed) {
  for (const char* flush : {"none", "step"}) {
    SimulateArguments arguments = Paper("1f1b", 4096, 20);
    arguments.stages = 64;
    arguments.samples = 4096;
    arguments.flush = flush;
    EXPECT_GT(Result(arguments)["time"], 2 * 4096);
    arguments.batch = 1;
    EXPECT_GT(Result(arguments)["time"], 2 * 4096);
  }
}

}  // namespace
}  // namespace smartpipe
