#include "cli/commands.h"

#include <filesystem>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testutil/process.h"

namespace smartpipe {
namespace {

using testing::HasSubstr;
using testing::Not;

// Before a run costs time, and before anything is written.
TEST(CommandsTest, AnUnwritableSummaryIsRefusedFirst) {
  testutil::TempDir dir;
  testutil::WriteFile(dir.File("config.toml"), "[data]\nname = \"synthetic\"\n");
  const TrainArguments arguments = {.config_path = dir.File("config.toml"),
                                    .sets = {},
                                    .run_dir = dir.File("run"),
                                    .summary_path = dir.File("missing/summary.json")};
  for (const auto command : {TrainCommand, DemoCommand}) {
    EXPECT_EQ(command(arguments), kExitUsage);
    EXPECT_FALSE(std::filesystem::exists(dir.File("run")));
  }
}

TEST(CommandsTest, TheSummaryDoesNotOverwriteTheConfig) {
  testutil::TempDir dir;
  const std::string text = "[data]\nname = \"synthetic\"\n";
  testutil::WriteFile(dir.File("config.toml"), text);
  testing::internal::CaptureStderr();
  EXPECT_EQ(TrainCommand({.config_path = dir.File("config.toml"),
                          .sets = {},
                          .run_dir = dir.File("run"),
                          .summary_path = dir.path() + "/./config.toml"}),
            kExitUsage);
  EXPECT_THAT(testing::internal::GetCapturedStderr(), HasSubstr("is the config itself"));
  EXPECT_EQ(testutil::ReadFile(dir.File("config.toml")), text);
}

TEST(CommandsTest, ADemoWithoutFreezingIsRefused) {
  testutil::TempDir dir;
  testutil::WriteFile(dir.File("config.toml"), "[data]\nname = \"synthetic\"\n");
  const TrainArguments arguments = {.config_path = dir.File("config.toml"),
                                    .sets = {"freeze.policy=full"},
                                    .run_dir = dir.File("run"),
                                    .summary_path = ""};
  testing::internal::CaptureStderr();
  EXPECT_EQ(DemoCommand(arguments), kExitUsage);
  EXPECT_THAT(testing::internal::GetCapturedStderr(), HasSubstr("freeze.policy=smartpipe"));
  EXPECT_FALSE(std::filesystem::exists(dir.File("run")));
}

TEST(CommandsTest, ConfigErrorsHaveOnlyTheCureThatFits) {
  testutil::TempDir dir;
  testing::internal::CaptureStderr();
  EXPECT_EQ(ConfigCheckCommand(dir.File("none.toml"), {}), kExitUsage);
  const std::string missing = testing::internal::GetCapturedStderr();
  EXPECT_THAT(missing, Not(HasSubstr("config keys")));
  EXPECT_THAT(missing, Not(HasSubstr("Nothing was started")));
  testutil::WriteFile(dir.File("c.toml"), "[train]\nepoch = 1\n");
  testing::internal::CaptureStderr();
  EXPECT_EQ(TrainCommand(
                {.config_path = dir.File("c.toml"), .sets = {}, .run_dir = "", .summary_path = ""}),
            kExitUsage);
  const std::string wrong = testing::internal::GetCapturedStderr();
  EXPECT_THAT(wrong, HasSubstr("config keys"));
  EXPECT_THAT(wrong, HasSubstr("Nothing was started"));
}

TEST(CommandsTest, KeysCanBeFiltered) {
  testing::internal::CaptureStdout();
  EXPECT_EQ(ConfigKeysCommand("freeze.t"), kExitFinished);
  const std::string text = testing::internal::GetCapturedStdout();
  EXPECT_THAT(text, testing::StartsWith("freeze.tau = 0.1\n"));
  EXPECT_THAT(text, Not(HasSubstr("train.epochs")));
  EXPECT_EQ(ConfigKeysCommand("nothing"), kExitUsage);
}

}  // namespace
}  // namespace smartpipe
