// What a user can get wrong or a machine can run out of: a clear sentence, the right exit code,
// nothing left running.
#include <sys/mount.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/integration/train_harness.h"

namespace smartpipe {
namespace {

using ::testing::HasSubstr;
using testutil::TempDir;
using testutil::TrainRun;

/// A folder with Fashion-MNIST's four files, each cut to `bytes` bytes.
void MakeTornDataset(const TempDir& dir, size_t bytes) {
  const std::string source = "/usr/share/datasets/fashion-mnist";
  for (const auto& entry : std::filesystem::directory_iterator(source)) {
    const std::string text = testutil::ReadFile(entry.path());
    testutil::WriteFile(dir.File(entry.path().filename()), text.substr(0, bytes));
  }
}

TEST(BadInputTest, ATornDatasetIsNamed) {
  TempDir data;
  MakeTornDataset(data, 1000);
  TrainRun run({absl::StrCat("data.path=\"", data.path(), "\"")});
  EXPECT_EQ(run.Wait(), 1) << run.process().output();
  EXPECT_THAT(run.process().output(), HasSubstr(data.path()));
}

TEST(BadInputTest, AMissingDatasetIsRefusedBeforeAnythingStarts) {
  TempDir empty;
  TrainRun run({absl::StrCat("data.path=\"", empty.path(), "\"")});
  EXPECT_EQ(run.Wait(), 2) << run.process().output();
  EXPECT_THAT(run.process().output(), HasSubstr("data.path"));
  EXPECT_FALSE(std::filesystem::exists(run.run_dir() + "/logs"));
}

TEST(BadInputTest, AConfigMistakeIsRefusedBeforeAnythingStarts) {
  TrainRun run({"train.epoch=3"});
  EXPECT_EQ(run.Wait(), 2);
  EXPECT_THAT(run.process().output(), HasSubstr("did you mean \"train.epochs\""));
  EXPECT_FALSE(std::filesystem::exists(run.run_dir() + "/logs"));
}

/// A small file system of its own; unmounted with the object.
class SmallDisk {
 public:
  explicit SmallDisk(const std::string& size) {
    mounted_ = mount("smartpipe-test", dir_.path().c_str(), "tmpfs", 0,
                     absl::StrCat("size=", size).c_str()) == 0;
  }
  ~SmallDisk() {
    if (mounted_) umount2(dir_.path().c_str(), MNT_DETACH);
  }
  bool mounted() const { return mounted_; }
  const std::string& path() const { return dir_.path(); }

 private:
  TempDir dir_;
  bool mounted_ = false;
};

TEST(BadInputTest, AFullDiskIsRefusedAtTheStart) {
  SmallDisk disk("1m");
  if (!disk.mounted()) GTEST_SKIP() << "mounting a small file system is not allowed here";
  TrainRun run({}, disk.path() + "/run");
  EXPECT_EQ(run.Wait(), 2) << run.process().output();
  EXPECT_THAT(run.process().output(), HasSubstr(disk.path()));
}

TEST(BadInputTest, ADiskThatFillsUpEndsTheRunWithTheReason) {
  SmallDisk disk("80m");
  if (!disk.mounted()) GTEST_SKIP() << "mounting a small file system is not allowed here";
  TrainRun run({"train.epochs=1000", "eval.every_epochs=0"}, disk.path() + "/run");
  ASSERT_TRUE(run.WaitForSteps(2)) << run.process().output();
  std::ofstream filler(disk.path() + "/filler", std::ios::binary);
  const std::string block(1 << 12, 'x');
  while (filler.write(block.data(), static_cast<std::streamsize>(block.size())).flush()) {
  }
  EXPECT_EQ(run.Wait(), 1) << run.process().output();
  EXPECT_THAT(run.process().output(), HasSubstr("No space left on device"));
  // What had been decided before is still whole: every line parses.
  for (const nlohmann::json& line : run.Lines("decisions.jsonl")) EXPECT_FALSE(line.is_discarded());
}

TEST(BadInputTest, AWorkerIsCalledAfterItsHostAndSaysWhatItLacks) {
  testutil::Process unnamed({testutil::Binary("stage_worker"), "--service", "127.0.0.1:1",
                             "--tls-ca", "none.crt", "--tls-cert", "none.crt", "--tls-key",
                             "none.key"});
  EXPECT_EQ(unnamed.Wait(absl::Seconds(20)), 1) << unnamed.output();
  char host[256] = "";
  gethostname(host, sizeof(host) - 1);
  const std::string name = absl::AsciiStrToLower(std::string(host, strcspn(host, ".")));
  EXPECT_THAT(unnamed.output(), HasSubstr(absl::StrCat("error stage_worker ", name, ": ")));
  EXPECT_THAT(unnamed.output(), HasSubstr("none.crt"));
  testutil::Process misnamed(
      {testutil::Binary("stage_worker"), "--service", "127.0.0.1:1", "--worker-id", "w_1"});
  EXPECT_EQ(misnamed.Wait(absl::Seconds(20)), 2);
  EXPECT_THAT(misnamed.output(), HasSubstr("--worker-id must be 1 to 63 of a-z, 0-9 and -, not "
                                           "\"w_1\""));
  testutil::Process elsewhere(
      {testutil::Binary("stage_worker"), "--service", "127.0.0.1:1", "--bind", "no-such-nic"});
  EXPECT_EQ(elsewhere.Wait(absl::Seconds(20)), 1);
  EXPECT_THAT(elsewhere.output(), HasSubstr("--bind: \"no-such-nic\" is neither an address nor a "
                                            "network interface of this machine: "));
}

}  // namespace
}  // namespace smartpipe
