#include "tests/testutil/scenario.h"

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace smartpipe::testutil {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

std::string Echo(const ScenarioCommand& command) {
  return absl::StrCat(command.name, " n=", command.IntArg("n", 7), "\n", command.body);
}

TEST(Scenario, SameOutputPasses) {
  const std::string file =
      "# head\n\nsay n=3\nbody line\n----\nsay n=3\nbody line\n\nsay\n----\nsay n=7\n";
  const auto replay = ReplayScenario(file, Echo);
  ASSERT_TRUE(replay.ok()) << replay.status();
  EXPECT_THAT(replay->failures, IsEmpty());
  EXPECT_EQ(replay->rewritten, file);
}

TEST(Scenario, DifferenceNamesTheLineAndIsRewritten) {
  const auto replay = ReplayScenario("# head\nsay n=3\n----\nold\n\nsay\n----\n", Echo);
  ASSERT_TRUE(replay.ok());
  ASSERT_THAT(replay->failures, SizeIs(2));
  EXPECT_THAT(replay->failures[0], HasSubstr("line 2: say n=3"));
  EXPECT_EQ(replay->rewritten, "# head\nsay n=3\n----\nsay n=3\n\nsay\n----\nsay n=7\n");
}

TEST(Scenario, OutputWithBlankLinesStandsBetweenDoubledSeparators) {
  auto blank = [](const ScenarioCommand&) { return "a\n\nb\n"; };
  const auto first = ReplayScenario("x\n----\n\ny\n----\n", blank);
  ASSERT_TRUE(first.ok());
  const auto second = ReplayScenario(first->rewritten, blank);
  ASSERT_TRUE(second.ok());
  EXPECT_THAT(second->failures, IsEmpty());
  EXPECT_EQ(second->rewritten, first->rewritten);
}

TEST(Scenario, CommandWithoutSeparatorIsAnError) {
  const auto replay = ReplayScenario("ok\n----\n\nlost\nbody\n", Echo);
  EXPECT_THAT(replay.status().message(), HasSubstr("line 4: command `lost`"));
}

}  // namespace
}  // namespace smartpipe::testutil
