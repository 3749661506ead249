// `smartpipe export` and `smartpipe eval`: what they say, and what they understand of the worker.
#include <cmath>
#include <filesystem>
#include <string>

#include "cli/commands.h"
#include "cli/eval_command.h"
#include "cli/export_command.h"
#include "cli/weights_worker.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/testutil/process.h"

namespace smartpipe {
namespace {

using testing::HasSubstr;

TEST(WeightsAnswerTest, NumbersComeThroughExactly) {
  const WeightsAnswer answer =
      ParseWeightsAnswer(R"({"step": 32, "test_accuracy": 0.1, "test_loss": 2.302585092994046,
                            "num_samples": 100, "weights_sha256": "ab"})"
                         "\n")
          .value();
  EXPECT_EQ(answer.step, 32);
  EXPECT_EQ(answer.test_accuracy, 0.1);
  EXPECT_EQ(EvalJson(answer),
            "{\"step\":32,\"test_accuracy\":0.1,\"test_loss\":2.302585092994046,"
            "\"num_samples\":100,\"weights_sha256\":\"ab\"}\n");
  EXPECT_EQ(EvalText({.source = "runs/a"}, answer),
            "runs/a (step 32): test accuracy 10.00 %, test loss 2.303, 100 samples\n"
            "weights_sha256 ab\n");
}

TEST(WeightsAnswerTest, AFileHasNoStepAndALossMayBeNone) {
  const WeightsAnswer answer =
      ParseWeightsAnswer(R"({"step": null, "test_accuracy": 0.5, "test_loss": null,
                            "num_samples": 2, "weights_sha256": "ab"})")
          .value();
  EXPECT_FALSE(answer.step.has_value());
  EXPECT_TRUE(std::isnan(answer.test_loss));
  const nlohmann::json json = nlohmann::json::parse(EvalJson(answer));
  EXPECT_TRUE(json["step"].is_null());
  EXPECT_TRUE(json["test_loss"].is_null());
  EXPECT_THAT(EvalText({.source = "a.safetensors"}, answer),
              HasSubstr("a.safetensors: test accuracy 50.00 %, test loss nan, 2 samples"));
}

TEST(WeightsAnswerTest, OfAnExport) {
  const WeightsAnswer answer =
      ParseWeightsAnswer(
          R"({"step": 32, "num_tensors": 4, "tensor_bytes": 80, "weights_sha256": "ab"})")
          .value();
  const ExportArguments arguments{.run_dir = "runs/a", .output_path = "b.safetensors"};
  EXPECT_EQ(ExportText(arguments, answer),
            "b.safetensors: the weights of runs/a after step 32, 4 tensors, 80 bytes\n"
            "weights_sha256 ab\n");
  EXPECT_EQ(ExportJson(arguments, answer),
            "{\"step\":32,\"output\":\"b.safetensors\",\"num_tensors\":4,\"tensor_bytes\":80,"
            "\"weights_sha256\":\"ab\"}\n");
}

TEST(WeightsAnswerTest, AnErrorKeepsItsCodeAndCannotForgeALine) {
  const absl::Status status =
      ParseWeightsAnswer(R"({"error": {"code": 15, "message": "bad\u001b[2J\nname"}})").status();
  EXPECT_TRUE(absl::IsDataLoss(status));
  EXPECT_EQ(status.message(), "bad\\x1b[2J\n  | name");
}

TEST(WeightsAnswerTest, AnythingElseIsRefused) {
  for (const char* text : {"", "{", "[]", "7", "{}", R"({"weights_sha256": 1})", R"({"error": 1})",
                           R"({"error": {"code": 0}})", R"({"error": {"message": 1}})"}) {
    EXPECT_TRUE(absl::IsInternal(ParseWeightsAnswer(text).status())) << text;
  }
  EXPECT_FALSE(ParseWeightsAnswer(R"({"error": {"code": 0, "message": "x"}})").ok());
}

TEST(WeightsExitCodeTest, TellsMistakesFromFailures) {
  EXPECT_EQ(WeightsExitCode(absl::NotFoundError("no such step")), kExitUsage);
  EXPECT_EQ(WeightsExitCode(absl::InvalidArgumentError("other model")), kExitUsage);
  EXPECT_EQ(WeightsExitCode(absl::DataLossError("damaged")), kExitFailed);
  EXPECT_EQ(WeightsExitCode(absl::UnavailableError("none yet")), kExitFailed);
  EXPECT_EQ(WeightsExitCode(absl::CancelledError("stopped")), kExitInterrupted);
}

TEST(RunDirTest, TheFolderOfADemoNamesItsRuns) {
  const testutil::TempDir dir;
  EXPECT_THAT(std::string(CheckRunDir(dir.File("none")).message()),
              HasSubstr("there is no run directory"));
  EXPECT_THAT(std::string(CheckRunDir(dir.path()).message()), HasSubstr("smartpipe train"));
  std::filesystem::create_directories(dir.File("full/checkpoints"));
  std::filesystem::create_directories(dir.File("fixed/checkpoints"));
  const absl::Status status = CheckRunDir(dir.path());
  EXPECT_TRUE(absl::IsNotFound(status));
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("give " + dir.File("fixed") + " or " + dir.File("full")));
  EXPECT_TRUE(CheckRunDir(dir.File("full")).ok());
}

}  // namespace
}  // namespace smartpipe
