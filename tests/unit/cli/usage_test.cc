#include "cli/usage.h"

#include "gtest/gtest.h"

namespace smartpipe {
namespace {

TEST(UnknownCommandTextTest, SuggestsOnlyWhatIsNear) {
  EXPECT_EQ(UnknownCommandText("tran", {"train", "demo"}),
            "unknown command \"tran\": did you mean \"train\"?\n`smartpipe --help` explains them.");
  EXPECT_EQ(UnknownCommandText("resume", {"train", "demo"}),
            "unknown command \"resume\"; the commands are train, demo\n"
            "`smartpipe --help` explains them.");
}

TEST(OptionHintTest, FindsTheKeyWithItsValue) {
  const std::vector<std::string> options = {"--set", "--run-dir"};
  EXPECT_EQ(OptionHint({"train", "x.toml", "--stages", "4"}, options, true),
            "did you mean --set pipeline.stages=4?");
  EXPECT_EQ(OptionHint({"train", "--batch-size=32"}, options, true),
            "did you mean --set train.batch_size=32?");
  EXPECT_EQ(OptionHint({"train", "--freeze.tau", "--set", "a=b"}, options, true),
            "did you mean --set freeze.tau=VALUE?");
}

TEST(OptionHintTest, ElseTheNearOptionOrNothing) {
  const std::vector<std::string> options = {"--steps", "--svg"};
  EXPECT_EQ(OptionHint({"timeline", "--step", "1:2"}, options, false), "did you mean --steps?");
  EXPECT_EQ(OptionHint({"timeline", "--stages", "4"}, {"--svg"}, false), "");
  EXPECT_EQ(OptionHint({"timeline", "--svg", "x"}, options, false), "");
}

}  // namespace
}  // namespace smartpipe
