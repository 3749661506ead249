// The program itself: exit codes, and what comes out where.
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/testutil/process.h"

namespace smartpipe {
namespace {

using ::testing::HasSubstr;

struct Ended {
  int exit_code = -1;
  std::string output;
};

Ended RunSmartpipe(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), testutil::Binary("smartpipe"));
  testutil::Process process(arguments);
  const int exit_code = process.Wait(absl::Seconds(60)).value_or(-1);
  return {exit_code, process.output()};
}

TEST(PlanningProcessTest, SimulatePrintsOneObject) {
  const Ended ended = RunSmartpipe({"simulate", "--schedule", "1f1b", "--stages", "4", "--samples",
                                    "6", "--batch", "3", "--frozen-stages", "2", "--json"});
  EXPECT_EQ(ended.exit_code, 0) << ended.output;
  const auto json = nlohmann::json::parse(ended.output, nullptr, false);
  ASSERT_TRUE(json.is_object()) << ended.output;
  EXPECT_EQ(json["time"], 16);
  EXPECT_EQ(json["bubbles"], 10);
}

TEST(PlanningProcessTest, MistakesInTheCommandLineEndWithTwo) {
  const std::vector<std::string> good = {"simulate",  "--schedule", "gpipe",   "--stages", "4",
                                         "--samples", "6",          "--batch", "3"};
  EXPECT_EQ(RunSmartpipe(good).exit_code, 0);
  const std::pair<std::vector<std::string>, const char*> kMistakes[] = {
      {{"--flush", "both"}, "--flush is \"both\""},
      {{"--frozen-stages", "9"}, "--frozen-stages is 9"},
      {{"--frozen-stages", "two"}, "two"},
      {{"--costs", "/nonexistent/costs.json"}, "/nonexistent/costs.json"},
      {{"--svg", "/nonexistent/picture.svg"}, "/nonexistent"},
      {{"--colour", "red"}, "--colour"},
  };
  for (const auto& [more, want] : kMistakes) {
    std::vector<std::string> arguments = good;
    arguments.insert(arguments.end(), more.begin(), more.end());
    const Ended ended = RunSmartpipe(arguments);
    EXPECT_EQ(ended.exit_code, 2) << ended.output;
    EXPECT_THAT(ended.output, HasSubstr(want));
  }
  EXPECT_EQ(RunSmartpipe({"simulate"}).exit_code, 2);
  EXPECT_EQ(RunSmartpipe({"plan"}).exit_code, 2);
}

TEST(PlanningProcessTest, PlanEndsWithOneWhenNothingFits) {
  testutil::TempDir dir;
  const std::string path = dir.File("costs.json");
  testutil::WriteFile(path, R"({"layers": [
      {"name": "a", "forward_us": 1, "input_grad_us": 1, "weight_grad_us": 1,
       "output_bytes": 10, "param_bytes": 100, "activation_bytes": 50},
      {"name": "b", "forward_us": 1, "input_grad_us": 1, "weight_grad_us": 1,
       "output_bytes": 10, "param_bytes": 100, "activation_bytes": 50}]})");
  const std::vector<std::string> plan = {"plan",   "--costs",        path, "--stages", "2",
                                         "--json", "--microbatches", "4"};
  const Ended good = RunSmartpipe(plan);
  EXPECT_EQ(good.exit_code, 0) << good.output;
  EXPECT_EQ(nlohmann::json::parse(good.output, nullptr, false)["cuts"][0], 1);
  std::vector<std::string> limited = plan;
  limited.insert(limited.end(), {"--memory-limit-bytes", "100"});
  const Ended none = RunSmartpipe(limited);
  EXPECT_EQ(none.exit_code, 1) << none.output;
  EXPECT_THAT(none.output, HasSubstr("too many"));
  testutil::WriteFile(path, R"({"layers": [{"name": "a", "forward": 1}]})");
  const Ended broken = RunSmartpipe(plan);
  EXPECT_EQ(broken.exit_code, 2) << broken.output;
  EXPECT_THAT(broken.output, HasSubstr("did you mean \"forward_us\"?"));
}

TEST(PlanningProcessTest, WhatIsWrongWithAPlanIsOneSentence) {
  const std::string costs = testutil::SourceFile("examples/costs/24_equal_layers.json");
  const std::vector<std::string> good = {"plan", "--costs", costs, "--microbatches", "4"};
  const std::pair<std::vector<std::string>, const char*> kMistakes[] = {
      {{"--stages", "25"}, "--stages is 25, not in 1..24"},
      {{"--stages", "2147483648"}, "--stages = 2147483648, which is not a whole number in range"},
      {{"--stages", "nan"}, "--stages = nan, which is not a whole number in range"},
      {{"--stages", "2", "--cuts", "30"}, "--cuts 30: stage 1 would hold layers [30,24)"},
      {{"--stages", "2", "--frontier", "24"}, "--frontier is 24, not in 0..23"},
      {{"--stages", "2", "--svg", "/nonexistent/picture.svg"}, "/nonexistent does not exist"},
      {{"--stages", "2", "--svg", "/dev/full"}, "/dev/full is a device or a pipe"},
      {{"--stages", "2", "--cores", "1", "--svg", "picture.svg"}, "leave --cores out"},
      {{"--stages", "4", "--stages-per-worker", "2"}, "runs one stage on each worker"},
  };
  for (const auto& [more, want] : kMistakes) {
    std::vector<std::string> arguments = good;
    arguments.insert(arguments.end(), more.begin(), more.end());
    const Ended ended = RunSmartpipe(arguments);
    EXPECT_EQ(ended.exit_code, 2) << ended.output;
    EXPECT_TRUE(absl::StartsWith(ended.output, "smartpipe: ")) << ended.output;
    EXPECT_THAT(ended.output, HasSubstr(want));
  }
}

TEST(PlanningProcessTest, HelpAndSuggestionsKnowTheCommands) {
  const Ended help = RunSmartpipe({"--help"});
  EXPECT_EQ(help.exit_code, 0);
  EXPECT_THAT(help.output, HasSubstr("simulate"));
  EXPECT_THAT(help.output, HasSubstr("plan"));
  EXPECT_THAT(RunSmartpipe({"simulat"}).output, HasSubstr("did you mean \"simulate\""));
  EXPECT_THAT(RunSmartpipe({"plna"}).output, HasSubstr("did you mean \"plan\""));
  EXPECT_THAT(RunSmartpipe({"simulate", "--help"}).output, HasSubstr("\"weight_grad_us\""));
  EXPECT_THAT(RunSmartpipe({"plan", "--help"}).output, HasSubstr("\"link_bytes_per_s\""));
}

// A command of a page and the lines that the page shows below it; "..." stands for any lines.
struct Shown {
  std::vector<std::string> words;  // after "smartpipe"
  std::vector<std::string> lines;
};

std::vector<Shown> CommandsOf(const std::string& page) {
  std::vector<Shown> shown;
  bool inside = false, in_command = false;
  for (absl::string_view line : absl::StrSplit(page, '\n')) {
    if (absl::StartsWith(line, "```")) {
      inside = !inside;
      in_command = false;
      continue;
    }
    if (!inside) continue;
    if (absl::ConsumePrefix(&line, "$ smartpipe ")) {
      shown.emplace_back();
      in_command = true;
    }
    if (in_command) {
      in_command = absl::ConsumeSuffix(&line, "\\");
      for (absl::string_view word : absl::StrSplit(line, ' ', absl::SkipEmpty()))
        shown.back().words.emplace_back(word);
    } else if (!shown.empty()) {
      shown.back().lines.emplace_back(line);
    }
  }
  return shown;
}

TEST(PlanningProcessTest, WhyPlanningShowsWhatTheCommandsPrint) {
  testutil::TempDir dir;
  const std::string page = testutil::ReadFile(testutil::SourceFile("docs/why-planning.md"));
  const std::vector<Shown> commands = CommandsOf(page);
  EXPECT_GE(commands.size(), 8u);
  for (Shown shown : commands) {
    std::string committed;
    for (std::string& word : shown.words) {
      if (absl::EndsWith(word, ".json")) word = testutil::SourceFile(word);
      if (!absl::EndsWith(word, ".svg")) continue;
      committed = testutil::ReadFile(testutil::SourceFile(word));
      word = dir.File("picture.svg");
    }
    const Ended ended = RunSmartpipe(shown.words);
    const std::string command = absl::StrJoin(shown.words, " ");
    ASSERT_EQ(ended.exit_code, 0) << command << "\n" << ended.output;
    if (!committed.empty()) {
      EXPECT_TRUE(testutil::ReadFile(dir.File("picture.svg")) == committed)
          << "the committed picture is another; renew it in the source folder: " << command;
    }
    const std::vector<std::string> printed = absl::StrSplit(ended.output, '\n');
    size_t next = 0;
    for (const std::string& line : shown.lines) {
      if (line == "..." || absl::StartsWith(line, "Picture: ")) continue;
      while (next < printed.size() && printed[next] != line) ++next;
      ASSERT_LT(next++, printed.size()) << command << " does not print: " << line;
    }
  }
}

}  // namespace
}  // namespace smartpipe
