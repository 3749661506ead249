// The command line of the real program, where it cannot be understood.
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testutil/process.h"

namespace smartpipe {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

std::string RunSmartPipe(std::vector<std::string> words, int exit_code) {
  words.insert(words.begin(), testutil::Binary("smartpipe"));
  testutil::Process process(words);
  EXPECT_EQ(process.Wait(absl::Seconds(20)).value_or(-1), exit_code) << process.output();
  return process.output();
}

TEST(UsageTest, NoWordAtAllGivesTheHelp) {
  EXPECT_EQ(RunSmartPipe({}, 2), RunSmartPipe({"--help"}, 0));
  EXPECT_EQ(RunSmartPipe({"help"}, 0), RunSmartPipe({"--help"}, 0));
  EXPECT_EQ(RunSmartPipe({"help", "train"}, 0), RunSmartPipe({"train", "--help"}, 0));
  EXPECT_EQ(RunSmartPipe({"version"}, 0), RunSmartPipe({"--version"}, 0));
}

TEST(UsageTest, UnknownCommandsOnBothLevels) {
  EXPECT_THAT(RunSmartPipe({"tran"}, 2),
              StartsWith("smartpipe: unknown command \"tran\": did you mean \"train\"?"));
  EXPECT_THAT(RunSmartPipe({"resume"}, 2), HasSubstr("the commands are train, demo, "));
  EXPECT_THAT(RunSmartPipe({"config", "chek"}, 2), HasSubstr("did you mean \"check\"?"));
  EXPECT_THAT(RunSmartPipe({"config"}, 2), HasSubstr("`smartpipe config` needs a command"));
}

TEST(UsageTest, UnknownOptionsPointToTheRightPlace) {
  EXPECT_EQ(RunSmartPipe({"train", "x.toml", "--stages", "4"}, 2),
            "smartpipe: unknown option --stages: did you mean --set pipeline.stages=4?\n"
            "`smartpipe train --help` explains this command.\n");
  EXPECT_THAT(RunSmartPipe({"timeline", "run", "--sgv", "x"}, 2), HasSubstr("did you mean --svg?"));
  EXPECT_THAT(RunSmartPipe({"train"}, 2), StartsWith("smartpipe: CONFIG is required"));
}

TEST(UsageTest, OutputThatIsLostIsAFailure) {
  for (const char* command :
       {"config keys", "simulate --schedule 1f1b --stages 2 --samples 2 --batch 2"}) {
    testutil::Process process(
        {"/bin/sh", "-c",
         absl::StrCat(testutil::Binary("smartpipe"), " ", command, " > /dev/full")});
    EXPECT_EQ(process.Wait(absl::Seconds(20)).value_or(-1), 1);
    EXPECT_EQ(process.output(), "smartpipe: stdout could not be written: it is full or closed\n");
  }
}

}  // namespace
}  // namespace smartpipe
