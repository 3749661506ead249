#include "services/obs/log.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testutil/process.h"

namespace smartpipe {
namespace {

using testing::HasSubstr;
using testing::Not;

TEST(Log, LinesHaveTimeLevelAndProcessAndTheMessageVerbatim) {
  testutil::TempDir dir;
  ASSERT_TRUE(
      InitLogging(
          {.process = "worker w0", .level = "info", .file = dir.File("log"), .to_stderr = false})
          .ok());
  LogDebug("not shown");
  LogInfo("step ", 7, ": {} %s ", 0.5);
  LogWarning("flushes");
  const std::string text = testutil::ReadFile(dir.File("log"));
  EXPECT_THAT(
      text, testing::ContainsRegex("^20[0-9-]* [0-9:.]* info worker w0: step 7: \\{\\} %s 0.5\n"));
  EXPECT_THAT(text, HasSubstr(" warning worker w0: flushes\n"));
  EXPECT_THAT(text, Not(HasSubstr("not shown")));
}

TEST(Log, RefusesAnUnknownLevelAndAFileThatCannotBeOpened) {
  const absl::Status level = InitLogging({.process = "x", .level = "loud", .file = ""});
  EXPECT_EQ(level.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(level.message()), HasSubstr("use one of debug, info, warning, error"));
  testutil::TempDir dir;
  testutil::WriteFile(dir.File("file"), "");
  const absl::Status file =
      InitLogging({.process = "x", .level = "info", .file = dir.File("file") + "/log"});
  EXPECT_THAT(std::string(file.message()), HasSubstr("cannot open the log file"));
}

}  // namespace
}  // namespace smartpipe
