#include "cli/commands.h"

#include <filesystem>

#include "gtest/gtest.h"
#include "tests/testutil/process.h"

namespace smartpipe {
namespace {

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

}  // namespace
}  // namespace smartpipe
