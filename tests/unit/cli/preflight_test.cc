#include "cli/preflight.h"

#include <filesystem>

#include "cli/files.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testutil/process.h"

namespace smartpipe {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testutil::TempDir;

// Four files of a dataset with `num_train` samples, of which only the headers are real.
void WriteDataset(const std::string& folder, uint8_t num_train) {
  fs::create_directories(folder);
  for (const char* name :
       {"train-images-idx3-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"}) {
    testutil::WriteFile(folder + "/" + name, "x");
  }
  testutil::WriteFile(folder + "/train-labels-idx1-ubyte",
                      std::string("\0\0\x08\x01\0\0\0", 7) + static_cast<char>(num_train));
}

TEST(LoadConfigTest, GoodConfigWithItsShapeAndAbsolutePaths) {
  TempDir dir;
  WriteDataset(dir.File("data"), 200);
  testutil::WriteFile(dir.File("c.toml"), "[data]\npath = \"" + dir.path() + "/./data\"\n");
  const auto checked = LoadConfig(dir.File("c.toml"), {"train.epochs=2"});
  ASSERT_TRUE(checked.ok()) << checked.status();
  EXPECT_EQ(checked->config.data.path, dir.File("data"));
  ASSERT_TRUE(checked->shape.has_value());
  EXPECT_EQ(checked->shape->num_steps, 6);
}

TEST(LoadConfigTest, TheTrainingSetMustHoldABatch) {
  TempDir dir;
  WriteDataset(dir.File("data"), 20);
  testutil::WriteFile(dir.File("c.toml"), "[data]\npath = \"" + dir.File("data") + "\"\n");
  EXPECT_THAT(std::string(LoadConfig(dir.File("c.toml"), {}).status().message()),
              HasSubstr("the training set has 20 samples, less than one batch of 64"));
}

TEST(LoadConfigTest, MissingFileAndFolder) {
  TempDir dir;
  EXPECT_THAT(std::string(LoadConfig(dir.File("none.toml"), {}).status().message()),
              HasSubstr("none.toml: No such file"));
  EXPECT_THAT(std::string(LoadConfig(dir.path(), {}).status().message()),
              HasSubstr("is a folder, not a file"));
}

TEST(LoadConfigTest, MissingDatasetNamesThePackage) {
  TempDir dir;
  testutil::WriteFile(dir.File("c.toml"), "[data]\npath = \"" + dir.File("none") + "\"\n");
  EXPECT_THAT(std::string(LoadConfig(dir.File("c.toml"), {}).status().message()),
              HasSubstr("install the package dataset-fashion-mnist"));
}

TEST(RunDirTest, IsMadeWithTheConfig) {
  TempDir dir;
  const auto run_dir = MakeRunDir(dir.File("a/b"), "full", RunConfig(), absl::UnixEpoch());
  ASSERT_TRUE(run_dir.ok()) << run_dir.status();
  EXPECT_EQ(testutil::ReadFile(*run_dir + "/config.toml"), ToToml(RunConfig()));
  EXPECT_TRUE(fs::is_directory(*run_dir + "/logs"));
}

TEST(RunDirTest, DefaultNameHasTimeAndPolicyAndIsNeverUsedTwice) {
  TempDir dir;
  const fs::path before = fs::current_path();
  fs::current_path(dir.path());
  EXPECT_EQ(MakeRunDir("", "full", RunConfig(), absl::UnixEpoch()).value(),
            "runs/19700101-000000-full");
  EXPECT_EQ(MakeRunDir("", "full", RunConfig(), absl::UnixEpoch()).value(),
            "runs/19700101-000000-full-2");
  fs::current_path(before);
}

TEST(RunDirTest, RefusesWhatIsNotEmptyOrNoFolder) {
  TempDir dir;
  testutil::WriteFile(dir.File("file"), "x");
  EXPECT_THAT(
      std::string(
          MakeRunDir(dir.path(), "full", RunConfig(), absl::UnixEpoch()).status().message()),
      HasSubstr("is not empty; give a new one by --run-dir, or delete it first"));
  EXPECT_THAT(
      std::string(
          MakeRunDir(dir.File("file"), "full", RunConfig(), absl::UnixEpoch()).status().message()),
      HasSubstr("is a file; give another name"));
  EXPECT_THAT(std::string(MakeRunDir(dir.File("file/x"), "full", RunConfig(), absl::UnixEpoch())
                              .status()
                              .message()),
              HasSubstr("cannot make the run directory"));
}

TEST(CheckWritableTest, NamesTheFolder) {
  TempDir dir;
  EXPECT_TRUE(CheckWritable(dir.File("s.json")).ok());
  EXPECT_THAT(std::string(CheckWritable(dir.path()).message()),
              HasSubstr("is a folder, not a file"));
  EXPECT_THAT(std::string(CheckWritable(dir.File("none/s.json")).message()),
              HasSubstr("none does not exist"));
}

TEST(WriteFileAtomicallyTest, ReplacesAndLeavesNothingBeside) {
  TempDir dir;
  ASSERT_TRUE(WriteFileAtomically(dir.File("f"), "one").ok());
  ASSERT_TRUE(WriteFileAtomically(dir.File("f"), "two").ok());
  EXPECT_EQ(testutil::ReadFile(dir.File("f")), "two");
  EXPECT_EQ(std::distance(fs::directory_iterator(dir.path()), fs::directory_iterator()), 1);
  EXPECT_FALSE(WriteFileAtomically("/dev/full/f", "x").ok());
}

TEST(ReadSmallFileTest, IsBounded) {
  TempDir dir;
  testutil::WriteFile(dir.File("f"), "12345");
  EXPECT_EQ(ReadSmallFile(dir.File("f"), 5).value(), "12345");
  EXPECT_THAT(std::string(ReadSmallFile(dir.File("f"), 4).status().message()),
              HasSubstr("more than 4 bytes"));
  EXPECT_THAT(std::string(ReadSmallFile(dir.path(), 4).status().message()),
              HasSubstr("is a folder, not a file"));
}

}  // namespace
}  // namespace smartpipe
