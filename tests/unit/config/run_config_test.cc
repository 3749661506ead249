#include "services/config/run_config.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace smartpipe {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Pair;

std::string Write(const fs::path& path, const std::string& text = "x") {
  std::ofstream(path) << text;
  return path.string();
}

class TempFolder {
 public:
  TempFolder() {
    std::string name = (fs::temp_directory_path() / "smartpipe_config_XXXXXX").string();
    path_ = mkdtemp(name.data());
  }
  ~TempFolder() { fs::remove_all(path_); }
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

TEST(RunConfigTest, EmptyTextGivesTheDefaults) {
  const auto config = ParseRunConfig("", "c.toml");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(ToToml(*config), ToToml(RunConfig()));
  EXPECT_EQ(config->train.batch_size, 64);
  EXPECT_EQ(config->freeze.policy, "smartpipe");
}

TEST(RunConfigTest, EveryKindOfValueIsRead) {
  const auto config = ParseRunConfig(R"(
decision_timeout_s = 5
train.epochs = 3          # dotted keys are tables too
[optim]
lr = 1
[pipeline]
stages = 3
cuts = [2, 5]
schedule = 'gpipe'
[freeze]
policy = "schedule"
schedule = [[0, 1], [40, 3]]
interval_steps = 20
[rebalance]
enabled = false
[checkpoint]
every_steps = 50
keep_last = 2
[data]
path = "/data/größe"
)",
                                     "c.toml");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->decision_timeout_s, 5);
  EXPECT_EQ(config->train.epochs, 3);
  EXPECT_EQ(config->optim.lr, 1.0);
  EXPECT_THAT(config->pipeline.cuts, ElementsAre(2, 5));
  EXPECT_EQ(config->pipeline.schedule, "gpipe");
  EXPECT_THAT(config->freeze.schedule, ElementsAre(Pair(0, 1), Pair(40, 3)));
  EXPECT_FALSE(config->rebalance.enabled);
  EXPECT_EQ(config->checkpoint.every_steps, 50);
  EXPECT_EQ(config->checkpoint.keep_last, 2);
  EXPECT_EQ(config->data.path, "/data/größe");
}

TEST(RunConfigTest, SetOverridesTheTextAndTheLastOneWins) {
  const auto config = ParseRunConfig(
      "[train]\nepochs = 3\n[freeze]\npolicy = \"full\"\n", "c.toml",
      {"train.epochs=4", "train.epochs=5", "freeze.policy=fixed", "pipeline.schedule=1f1b",
       "optim.lr=1e-3", "pipeline.cuts=[3]", "data.path=/a b/c#d", "model.weights=\"x=y\"",
       "rebalance.enabled=false", "freeze.statistic= vector "});
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->train.epochs, 5);
  EXPECT_EQ(config->freeze.policy, "fixed");
  EXPECT_EQ(config->pipeline.schedule, "1f1b");
  EXPECT_EQ(config->optim.lr, 1e-3);
  EXPECT_THAT(config->pipeline.cuts, ElementsAre(3));
  EXPECT_EQ(config->data.path, "/a b/c#d");
  EXPECT_EQ(config->model.weights, "x=y");
  EXPECT_FALSE(config->rebalance.enabled);
  EXPECT_EQ(config->freeze.statistic, "vector");
}

TEST(RunConfigTest, SetClearsAString) {
  const auto config = ParseRunConfig("[data]\npath = \"/x\"\n", "c.toml", {"data.path="});
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->data.path, "");
}

TEST(RunConfigTest, SetCannotSmuggleInASecondKey) {
  const auto config = ParseRunConfig("", "c.toml", {"train.epochs=3\ny = 4"});
  EXPECT_THAT(std::string(config.status().message()), HasSubstr("train.epochs"));
}

TEST(RunConfigTest, OptimizerCanBeSwitchedAlone) {
  EXPECT_TRUE(ParseRunConfig("[optim]\nmomentum = 0.9\n", "c.toml", {"optim.name=adamw"}).ok());
}

TEST(RunConfigTest, CanonicalTomlReadsBackEqual) {
  RunConfig config;
  config.train = {
      .epochs = 3, .batch_size = 96, .microbatches = 6, .seed = INT64_MAX, .max_steps = 77};
  config.optim = {.name = "adamw", .lr = 0.1 + 0.2, .momentum = 0, .weight_decay = 1e-7};
  config.pipeline = {.stages = 4, .schedule = "gpipe", .cuts = {1, 3, 5}};
  config.freeze.policy = "schedule";
  config.freeze.schedule = {{0, 1}, {500, 2}};
  config.freeze.tau = 1.0;
  config.model.weights = "/tmp/a \"quoted\" \\ name.safetensors";
  config.model.allow_partial = true;
  config.data.path = "größe";
  config.decision_timeout_s = 0.25;
  const auto again = ParseRunConfig(ToToml(config), "c.toml");
  ASSERT_TRUE(again.ok()) << again.status() << "\n" << ToToml(config);
  EXPECT_EQ(ToToml(*again), ToToml(config));
  EXPECT_EQ(again->optim.lr, config.optim.lr);
  EXPECT_EQ(again->train.seed, config.train.seed);
  EXPECT_EQ(again->model.weights, config.model.weights);
  EXPECT_EQ(again->freeze.schedule, config.freeze.schedule);
}

TEST(RunConfigTest, CanonicalTomlHasEveryKeyOfTheTableInGroups) {
  const std::string toml = ToToml(RunConfig());
  std::set<std::string> seen;
  for (const ConfigKey& key : ConfigKeys()) {
    EXPECT_TRUE(seen.insert(key.key).second) << key.key;
    EXPECT_FALSE(key.doc.empty()) << key.key;
    const std::string leaf = key.key.substr(key.key.find('.') + 1);
    EXPECT_THAT(toml, HasSubstr(leaf + " = " + key.default_value + "\n"));
  }
  EXPECT_EQ(seen.size(), 49u);  // the public contract: no key comes or goes unnoticed
}

TEST(RunConfigTest, EachDefaultCanBeSet) {
  for (const ConfigKey& key : ConfigKeys()) {
    const auto config = ParseRunConfig("", "c.toml", {key.key + "=" + key.default_value});
    EXPECT_TRUE(config.ok()) << config.status();
  }
}

TEST(RunConfigTest, SizeIsBounded) {
  const auto config = ParseRunConfig(std::string(2 << 20, '#'), "c.toml");
  EXPECT_EQ(
      config.status().message(),
      "c.toml: the config has 2097152 bytes, at most 1048576 are allowed; is it the right file?");
}

TEST(RunConfigTest, ExamplesAreGood) {
  const char* source = std::getenv("SMARTPIPE_SOURCE_DIR");
  if (source == nullptr) GTEST_SKIP() << "SMARTPIPE_SOURCE_DIR is not set";
  int num_examples = 0;
  for (const auto& entry : fs::directory_iterator(fs::path(source) / "examples")) {
    if (entry.path().extension() != ".toml") continue;
    std::stringstream text;
    text << std::ifstream(entry.path()).rdbuf();
    const auto config = ParseRunConfig(text.str(), entry.path().string());
    EXPECT_TRUE(config.ok()) << config.status();
    ++num_examples;
  }
  EXPECT_GE(num_examples, 1);
}

TEST(ConfigFilesTest, MissingWeightsAndFolder) {
  RunConfig config;
  config.model.weights = "/nonexistent/w.safetensors";
  config.data.path = "/nonexistent/data";
  const auto problems = CheckConfigFiles(config, {"images", "labels"});
  ASSERT_EQ(problems.size(), 2u);
  EXPECT_EQ(FormatConfigProblem(problems[0], "c.toml"),
            "c.toml: model.weights: file \"/nonexistent/w.safetensors\" does not exist; give a "
            "safetensors file, or "
            "\"\" to start from random weights");
  EXPECT_EQ(FormatConfigProblem(problems[1], "c.toml"),
            "c.toml: data.path: folder \"/nonexistent/data\" does not exist; it must hold images, "
            "labels");
}

TEST(ConfigFilesTest, EachMissingFileOfTheDatasetIsNamed) {
  TempFolder folder;
  RunConfig config;
  config.data.path = folder.path().string();
  Write(folder.path() / "images.gz");
  const auto problems = CheckConfigFiles(config, {"images", "labels"});
  ASSERT_EQ(problems.size(), 1u);
  EXPECT_EQ(problems[0].message,
            "file \"" + config.data.path +
                "/labels\" (or labels.gz) does not exist; dataset fashion_mnist needs it");
  Write(folder.path() / "labels");
  EXPECT_THAT(CheckConfigFiles(config, {"images", "labels"}), IsEmpty());
}

TEST(ConfigFilesTest, AFolderIsNoWeightsFile) {
  TempFolder folder;
  RunConfig config;
  config.model.weights = folder.path().string();
  const auto problems = CheckConfigFiles(config, {});
  ASSERT_EQ(problems.size(), 1u);
  EXPECT_THAT(problems[0].message, HasSubstr("is a folder, not a file"));
}

TEST(RunShapeTest, StepsIntervalsAndBoundaries) {
  RunConfig config;
  config.train.epochs = 2;
  const auto shape = MakeRunShape(config, 60'000);  // batch 64: the last 32 samples are dropped
  ASSERT_TRUE(shape.ok()) << shape.status();
  EXPECT_EQ(shape->steps_per_epoch, 937);
  EXPECT_EQ(shape->num_steps, 1874);
  EXPECT_EQ(shape->interval_steps, 234);
  EXPECT_EQ(shape->num_boundaries, 9);  // 8 whole intervals and a short one
}

TEST(RunShapeTest, CheckpointsAreTakenOnceAnEpochUnlessTheConfigSays) {
  RunConfig config;
  EXPECT_EQ(MakeRunShape(config, 60'000)->checkpoint_steps, 937);
  config.checkpoint.every_steps = 20;
  EXPECT_EQ(MakeRunShape(config, 60'000)->checkpoint_steps, 20);
}

TEST(RunShapeTest, LimitsBind) {
  RunConfig config;
  config.data.limit_train = 130;
  config.train.max_steps = 5;
  config.freeze.interval_steps = 5;
  const auto shape = MakeRunShape(config, 60'000);
  ASSERT_TRUE(shape.ok()) << shape.status();
  EXPECT_EQ(shape->steps_per_epoch, 2);
  EXPECT_EQ(shape->num_steps, 5);
  EXPECT_EQ(shape->num_boundaries, 1);
}

TEST(RunShapeTest, ATinyEpochHasIntervalsOfOneStep) {
  RunConfig config;
  config.data.limit_train = 128;
  EXPECT_EQ(MakeRunShape(config, 60'000)->interval_steps, 1);
}

TEST(RunShapeTest, LessThanOneBatch) {
  const auto shape = MakeRunShape(RunConfig(), 63);
  EXPECT_EQ(shape.status().message(),
            "train.batch_size: the training set has 63 samples, less than one batch of 64; give a "
            "smaller batch_size "
            "or more data");
}

TEST(RunShapeTest, ScheduleOffTheQuarterEpoch) {
  RunConfig config;
  config.freeze.policy = "schedule";
  config.freeze.schedule = {{234, 1}, {500, 2}};
  const auto shape = MakeRunShape(config, 60'000);
  EXPECT_EQ(
      shape.status().message(),
      "freeze.schedule: step 500 is not a multiple of the interval, 234 steps (a quarter epoch; "
      "freeze.interval_steps = 0); give 468 or 702");
}

TEST(RunShapeTest, AScheduledStepMustComeBeforeTheEnd) {
  RunConfig config;
  config.train.max_steps = 20;
  config.freeze.interval_steps = 5;
  config.freeze.policy = "schedule";
  config.freeze.schedule = {{5, 1}, {15, 2}};
  EXPECT_TRUE(MakeRunShape(config, 60'000).ok());
  config.freeze.schedule.emplace_back(20, 3);
  EXPECT_EQ(MakeRunShape(config, 60'000).status().message(),
            "freeze.schedule: step 20 would never come: the run has 20 steps, 0 .. 19; give an "
            "earlier step, more epochs, or remove the entry");
}

}  // namespace
}  // namespace smartpipe
