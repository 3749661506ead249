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
  EXPECT_EQ(DifferenceOf(before, before), "");
  EXPECT_EQ(DifferenceOf(before, {.config_toml = "[train]\nepochs = 1\n[freeze]\ntau = 0.2\n"}),
            "freeze.tau = 0.1 was recorded, now it is freeze.tau = 0.2");
  RunSettings cores = before;
  cores.num_cores = 4;
  EXPECT_EQ(DifferenceOf(before, cores), "--cores 0 was recorded, now it is --cores 4");
}

}  // namespace
}  // namespace smartpipe
