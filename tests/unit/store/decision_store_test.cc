#include "freeze_service/store/decision_store.h"

#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <limits>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace smartpipe {
namespace {

using ::testing::HasSubstr;

Verdict MakeVerdict() {
  Verdict verdict;
  verdict.boundary = IntervalIndex(3);
  verdict.step = Step(30);
  verdict.plan.emplace();
  verdict.reason = "freezes layer 0 \"stem\": eta 0.05 < tau 0.1 for 1 interval";
  verdict.frontier = LayerIndex(1);
  verdict.cuts = {LayerIndex(2), LayerIndex(5)};
  verdict.plan_epoch = PlanEpoch(1);
  verdict.moves = {{LayerIndex(2), StageIndex(1), StageIndex(0)}};
  verdict.moved_bytes = 1000;
  verdict.predicted_old_step_s = 0.25;
  verdict.predicted_step_s = 0.125;
  verdict.eta = {0.05, std::numeric_limits<double>::quiet_NaN(),
                 std::numeric_limits<double>::infinity()};
  return verdict;
}

DecisionRecord MakeRecord(int64_t sequence) {
  return {sequence,
          absl::FromUnixSeconds(1700000000),
          StopRequested{"enough"},
          {MakeVerdict(), EndRun{false, "enough"}}};
}

class DecisionStoreTest : public testing::Test {
 protected:
  void SetUp() override {
    path_ = absl::StrCat(testing::TempDir(), "/decisions-", getpid(), "-",
                         testing::UnitTest::GetInstance()->current_test_info()->name(), ".jsonl");
    std::filesystem::remove(path_);
  }
  void TearDown() override { std::filesystem::remove(path_); }

  std::string Contents() const {
    std::ifstream in(path_);
    std::stringstream text;
    text << in.rdbuf();
    return text.str();
  }

  std::string path_;
};

TEST(DecisionJson, VerdictIsOneLineWithEveryNumber) {
  EXPECT_EQ(
      DecisionJson(7, absl::FromUnixMicros(1700000000123456), MakeVerdict()),
      R"({"sequence":7,"time":"2023-11-14T22:13:20.123456Z","type":"verdict","boundary":3,"step":30,)"
      R"("verdict":"plan","plan_epoch":1,"frontier":1,"cuts":[2,5],)"
      R"("moves":[{"layer":2,"from_stage":1,"to_stage":0}],"moved_bytes":1000,)"
      R"("predicted_old_step_s":0.25,"predicted_step_s":0.125,"even_step_s":0.0,"eta":[0.05,null,null],)"
      R"("reason":"freezes layer 0 \"stem\": eta 0.05 < tau 0.1 for 1 interval"})");
}

TEST(DecisionJson, StartAndEnd) {
  StartGeneration start{Generation(1), {WorkerId("w0"), WorkerId("w1")}, {}};
  start.plan.cuts = {LayerIndex(4)};
  start.plan.schedule = "1f1b";
  EXPECT_EQ(DecisionJson(0, absl::UnixEpoch(), start),
            R"({"sequence":0,"time":"1970-01-01T00:00:00.000000Z","type":"start_generation",)"
            R"("generation":1,"members":["w0","w1"],"plan_epoch":0,"frontier":0,"cuts":[4],)"
            R"("schedule":"1f1b"})");
  EXPECT_EQ(
      DecisionJson(1, absl::UnixEpoch(), EndRun{false, "worker \"w1\" was lost\n"}),
      R"({"sequence":1,"time":"1970-01-01T00:00:00.000000Z","type":"end_run","success":false,)"
      R"("reason":"worker \"w1\" was lost\n"})");
}

TEST(DecisionJson, BytesThatAreNoTextDoNotBreakTheLine) {
  const std::string line =
      DecisionJson(0, absl::UnixEpoch(), EndRun{false, "last words \xff\xfe\x01"});
  EXPECT_TRUE(nlohmann::json::accept(line)) << line;
}

TEST_F(DecisionStoreTest, AppendsOneLinePerDecisionAndKeepsWhatWasThere) {
  std::ofstream(path_) << "{}\n";
  const auto store = *MakeMemoryDecisionStore(path_);
  ASSERT_TRUE(store->Append(MakeRecord(0)).ok());
  ASSERT_TRUE(store->Append({1, absl::UnixEpoch(), StopRequested{}, {}}).ok());
  EXPECT_TRUE(store->records().empty());  // they are in the file
  EXPECT_EQ(Contents(),
            absl::StrCat("{}\n", DecisionJson(0, MakeRecord(0).now, MakeVerdict()), "\n",
                         DecisionJson(0, MakeRecord(0).now, EndRun{false, "enough"}), "\n"));
}

TEST_F(DecisionStoreTest, WithoutAPathItIsMemoryOnly) {
  const auto store = *MakeMemoryDecisionStore("");
  EXPECT_TRUE(store->Append(MakeRecord(0)).ok());
  EXPECT_EQ(store->records().size(), 1);
}

TEST_F(DecisionStoreTest, SequenceMustBeGapless) {
  const auto store = *MakeMemoryDecisionStore(path_);
  EXPECT_EQ(store->Append(MakeRecord(1)).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(store->Append(MakeRecord(0)).ok());
  EXPECT_EQ(store->Append(MakeRecord(0)).message(),
            "decision record 0 cannot be stored, the next is 1");
}

TEST_F(DecisionStoreTest, FullDiskIsAnErrorAndNothingIsAppended) {
  const auto store = *MakeMemoryDecisionStore("/dev/full");
  const absl::Status status = store->Append(MakeRecord(0));
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(status.message(), "cannot write to /dev/full: No space left on device");
  EXPECT_EQ(store->Append(MakeRecord(1)).code(), absl::StatusCode::kInvalidArgument);
}

// The file may grow only to a part of the second record: the part that fitted is taken back.
TEST_F(DecisionStoreTest, HalfALineIsTakenBack) {
  const auto store = *MakeMemoryDecisionStore(path_);
  ASSERT_TRUE(store->Append(MakeRecord(0)).ok());
  const std::string before = Contents();
  rlimit old_limit;
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &old_limit), 0);
  const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit limit = old_limit;
  limit.rlim_cur = before.size() + 10;
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
  const absl::Status status = store->Append(MakeRecord(1));
  setrlimit(RLIMIT_FSIZE, &old_limit);
  std::signal(SIGXFSZ, old_handler);
  EXPECT_THAT(status.message(), HasSubstr(absl::StrCat("cannot write to ", path_, ": ")));
  EXPECT_EQ(Contents(), before);
  EXPECT_TRUE(store->Append(MakeRecord(1)).ok());
}

TEST_F(DecisionStoreTest, APathThatCannotBeOpenedIsNamed) {
  const auto store = MakeMemoryDecisionStore("/no/such/folder/decisions.jsonl");
  EXPECT_EQ(store.status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(store.status().message(),
            "cannot open /no/such/folder/decisions.jsonl: No such file or directory");
}

}  // namespace
}  // namespace smartpipe
