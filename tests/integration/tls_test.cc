// A run whose processes use TLS, with certificates of `smartpipe certs`.
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/integration/train_harness.h"

namespace smartpipe {
namespace {

using testing::HasSubstr;
using testing::Not;
using testutil::Process;
using testutil::TrainRun;

class TlsRun : public testing::Test {
 protected:
  void SetUp() override {
    Process certs({testutil::Binary("smartpipe"), "certs", dir_.File("tls")});
    ASSERT_EQ(certs.Wait(absl::Minutes(1)), 0) << certs.output();
    EXPECT_THAT(certs.output(), HasSubstr("all.crt, .key"));
  }
  /// --set words for the certificate NAME.
  std::vector<std::string> Sets(const std::string& name) const {
    const std::string tls = dir_.File("tls/");
    return {absl::StrCat("tls.ca=", tls, "ca.crt"), absl::StrCat("tls.cert=", tls, name, ".crt"),
            absl::StrCat("tls.key=", tls, name, ".key")};
  }

  testutil::TempDir dir_;
};

TEST_F(TlsRun, TrainsToTheSameWeights) {
  TrainRun with(Sets("all"));
  ASSERT_EQ(with.Wait(), 0) << with.process().output();
  TrainRun without({});
  ASSERT_EQ(without.Wait(), 0) << without.process().output();
  EXPECT_TRUE(testutil::ReadFile(with.run_dir() + "/model.safetensors") ==
              testutil::ReadFile(without.run_dir() + "/model.safetensors"));
  for (const char* name : {"freeze_service", "parameter_service", "w0", "w1"}) {
    EXPECT_THAT(testutil::ReadFile(absl::StrCat(with.run_dir(), "/logs/", name, ".log")),
                Not(HasSubstr("refused")));
  }
  Process checkpoints({testutil::Binary("smartpipe"), "checkpoints", with.run_dir()});
  EXPECT_EQ(checkpoints.Wait(absl::Minutes(1)), 0);
  EXPECT_THAT(checkpoints.output(), HasSubstr("complete"));
}

// Other certificates change no result, so they may differ.
TEST_F(TlsRun, GoesOnWithoutTls) {
  std::vector<std::string> sets = Sets("all");
  sets.push_back("checkpoint.every_steps=8");
  TrainRun with(sets, dir_.File("run"));
  ASSERT_EQ(with.Wait(), 0) << with.process().output();
  TrainRun without({"checkpoint.every_steps=8"}, dir_.File("run"), "8");
  EXPECT_EQ(without.Wait(), 0) << without.process().output();
}

TEST_F(TlsRun, AWrongRoleEndsItWithASentence) {
  TrainRun run(Sets("service"));
  EXPECT_EQ(run.Wait(), 1);
  EXPECT_THAT(run.process().output(),
              HasSubstr("the freeze service refused this worker: \"service\" (role service) may "
                        "not call smartpipe.v1.FreezeService/Join, which needs role worker"));
}

TEST_F(TlsRun, BadFilesStartNothing) {
  std::vector<std::string> sets = Sets("all");
  sets[2] = Sets("worker")[2];
  TrainRun mixed(sets);
  EXPECT_EQ(mixed.Wait(), 2);
  EXPECT_THAT(mixed.process().output(), HasSubstr("does not belong to the certificate in"));
  EXPECT_THAT(mixed.process().output(), HasSubstr("Nothing was started."));
  sets[2] = "tls.key=" + dir_.File("nowhere");
  TrainRun missing(sets);
  EXPECT_EQ(missing.Wait(), 2);
  EXPECT_THAT(missing.process().output(), HasSubstr("nowhere\" does not exist"));
}

}  // namespace
}  // namespace smartpipe
