// The program itself: exit codes, and what comes out where.
#include <string>
#include <vector>

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

}  // namespace
}  // namespace smartpipe
