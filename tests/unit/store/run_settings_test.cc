#include "freeze_service/store/run_settings.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/store/log_harness.h"

namespace smartpipe {
namespace {

TEST(RunSettings, BecomeTheCoresOptions) {
  const absl::StatusOr<CoordinatorOptions> options =
      MakeCoordinatorOptions(testutil::LogSettings());
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ(options->num_stages, 2);
  EXPECT_EQ(options->num_cores, 2);
  EXPECT_EQ(options->policy.tau, 0.1);
  EXPECT_EQ(MakeCoordinatorOptions({.config_toml = "[train]\nepoch = 1\n"}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(RunSettings, TheFirstDifferenceIsNamed) {
  const RunSettings before = {.config_toml = "[train]\nepochs = 1\n[freeze]\ntau = 0.1\n"};
  EXPECT_EQ(DifferenceOf(before, before, Resuming::kNo), "");
  EXPECT_EQ(DifferenceOf(before, {.config_toml = "[train]\nepochs = 1\n[freeze]\ntau = 0.2\n"},
                         Resuming::kNo),
            "freeze.tau = 0.1 was recorded, now it is freeze.tau = 0.2");
  RunSettings cores = before;
  cores.num_cores = 4;
  EXPECT_EQ(DifferenceOf(before, cores, Resuming::kNo),
            "--cores 0 was recorded, now it is --cores 4");
}

TEST(RunSettings, OnlyHowTheRunIsCarriedOutMayDifferOnResume) {
  const auto difference = [](const std::string& before, const std::string& after) {
    return DifferenceOf({.config_toml = before, .num_cores = 2},
                        {.config_toml = after, .num_cores = 4}, Resuming::kYes);
  };
  EXPECT_EQ(difference("[pipeline]\nstages = 2\n[rebalance]\nenabled = true\n",
                       "[pipeline]\nstages = 4\n[rebalance]\nenabled = false\n"),
            "");
  EXPECT_EQ(difference("[worker]\ntrace = true\n[service]\naddress = \"\"\n"
                       "[tls]\nca = \"a\"\ncert = \"b\"\nkey = \"c\"\n",
                       "[worker]\ntrace = false\n[service]\naddress = \"127.0.0.1:1\"\n"),
            "");
  EXPECT_EQ(difference("[pipeline]\nstages = 2\n[train]\nseed = 1\n",
                       "[pipeline]\nstages = 3\n[train]\nseed = 2\n"),
            "train.seed = 1 was recorded, now it is train.seed = 2");
  EXPECT_EQ(difference("watchdog_s = 1\n", "watchdog_s = 2\n"),
            "watchdog_s = 1 was recorded, now it is watchdog_s = 2");
}

}  // namespace
}  // namespace smartpipe
