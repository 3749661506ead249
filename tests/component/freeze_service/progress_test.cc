// metrics.jsonl and the live figures.
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_split.h"
#include "freeze_service/rpc/progress_log.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/testutil/process.h"

namespace smartpipe {
namespace {

using nlohmann::json;
using testing::HasSubstr;

const ProgressLog::Length kLength{.num_steps = 100, .steps_per_epoch = 4, .interval_steps = 10};

LayerIndex FrontierAt(Step step) { return LayerIndex(step.value() < 5 ? 0 : 2); }

v1::ReportProgressRequest Steps(int first, int end, double step_s) {
  v1::ReportProgressRequest request;
  for (int step = first; step < end; ++step) {
    v1::StepProgress* added = request.add_steps();
    added->set_step(step);
    added->set_loss(1.5);
    added->set_step_s(step_s);
  }
  return request;
}

std::vector<json> Lines(const std::string& path) {
  std::vector<json> lines;
  const std::string text = testutil::ReadFile(path);
  for (absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
    lines.push_back(json::parse(std::string(line)));
  }
  return lines;
}

TEST(ProgressLog, GoesOnBehindTheLastWholeLine) {
  testutil::TempDir dir;
  const std::string path = dir.File("m");
  v1::ReportProgressRequest request = Steps(0, 6, 0.5);
  request.add_evaluations()->set_step(4);
  request.mutable_evaluations(0)->set_accuracy(0.75);
  request.mutable_evaluations(0)->set_loss(0.5);
  v1::Run before, after;
  {
    const auto log = ProgressLog::Create(path, 64).value();
    ASSERT_TRUE(log->Add(request, kLength, FrontierAt).ok());
    log->Fill(before, kLength);
  }
  const std::string text = testutil::ReadFile(path);
  testutil::WriteFile(path, text + "{\"step\": 6, \"lo");  // killed while it wrote
  const auto log = ProgressLog::Create(path, 64).value();
  EXPECT_EQ(testutil::ReadFile(path), text);
  log->Fill(after, kLength);
  before.clear_samples_per_second();  // of the newest steps only
  EXPECT_EQ(after.SerializeAsString(), before.SerializeAsString());
  ASSERT_TRUE(log->Add(request, kLength, FrontierAt).ok());  // repeated by the worker
  EXPECT_EQ(testutil::ReadFile(path), text);
  ASSERT_TRUE(log->Add(Steps(5, 7, 0.5), kLength, FrontierAt).ok());
  EXPECT_EQ(Lines(path).size(), 8u);
}

TEST(ProgressLog, WritesOneLineForEachStepAndEvaluationOnce) {
  testutil::TempDir dir;
  std::unique_ptr<ProgressLog> log = ProgressLog::Create(dir.File("m"), 64).value();
  v1::ReportProgressRequest request = Steps(0, 6, 0.5);
  request.mutable_steps(1)->set_loss(std::numeric_limits<double>::quiet_NaN());
  request.add_evaluations()->set_step(4);
  request.mutable_evaluations(0)->set_accuracy(0.75);
  ASSERT_TRUE(log->Add(request, kLength, FrontierAt).ok());
  ASSERT_TRUE(log->Add(request, kLength, FrontierAt).ok());  // repeated
  const std::vector<json> lines = Lines(dir.File("m"));
  ASSERT_EQ(lines.size(), 7u);
  EXPECT_EQ(lines[5], json({{"step", 5},
                            {"epoch", 1},
                            {"loss", 1.5},
                            {"step_s", 0.5},
                            {"samples_per_s", 128.0},
                            {"frontier", 2}}));
  EXPECT_TRUE(lines[1]["loss"].is_null());
  EXPECT_EQ(lines[4]["frontier"], 0);
  EXPECT_EQ(lines[6]["evaluation"]["accuracy"], 0.75);
}

TEST(ProgressLog, TooManyEvaluationsAreRefusedBeforeAnythingIsTaken) {
  constexpr int kMany = 100'000;
  const ProgressLog::Length length{
      .num_steps = 2 * kMany, .steps_per_epoch = 4, .interval_steps = 10};
  std::unique_ptr<ProgressLog> log = ProgressLog::Create("", 64).value();
  v1::ReportProgressRequest request;
  for (int step = 0; step < kMany; ++step) request.add_evaluations()->set_step(step);
  ASSERT_TRUE(log->Add(request, length, FrontierAt).ok());
  EXPECT_TRUE(log->Add(request, length, FrontierAt).ok());  // repeated
  v1::ReportProgressRequest more = Steps(0, 3, 0.5);
  more.add_evaluations()->set_step(kMany);
  EXPECT_EQ(log->Add(more, length, FrontierAt).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(log->steps_done(), 0);
}

TEST(ProgressLog, ShowsTheSpeedOfTheNewestTwoSeconds) {
  std::unique_ptr<ProgressLog> log = ProgressLog::Create("", 10).value();
  v1::Run run;
  log->Fill(run, kLength);
  EXPECT_EQ(run.samples_per_second(), 0);
  ASSERT_TRUE(log->Add(Steps(0, 20, 5.0), kLength, FrontierAt).ok());
  ASSERT_TRUE(log->Add(Steps(20, 26, 0.5), kLength, FrontierAt).ok());
  log->Fill(run, kLength);
  EXPECT_EQ(run.step(), 26);
  EXPECT_DOUBLE_EQ(run.samples_per_second(), 20);
}

TEST(ProgressLog, AFullDiskIsToldAndTheFiguresGoOn) {
  std::unique_ptr<ProgressLog> log = ProgressLog::Create("/dev/full", 10).value();
  EXPECT_EQ(log->problem(), "");
  ASSERT_TRUE(log->Add(Steps(0, 3, 0.5), kLength, FrontierAt).ok());
  EXPECT_THAT(log->problem(), HasSubstr("cannot write /dev/full: No space left on device"));
  EXPECT_EQ(log->steps_done(), 3);
}

TEST(ProgressLog, AFileThatCannotBeOpenedIsRefused) {
  testutil::TempDir dir;
  EXPECT_THAT(ProgressLog::Create(dir.File("no/such"), 1).status().ToString(),
              HasSubstr("cannot open"));
}

}  // namespace
}  // namespace smartpipe
