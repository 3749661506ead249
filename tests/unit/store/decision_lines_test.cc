// The JSON line of a decision, and decisions.jsonl.
#include "freeze_service/store/decision_lines.h"

#include <limits>
#include <string>

#include "absl/strings/str_cat.h"
#include "freeze_service/store/decision_store.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/testutil/process.h"

namespace smartpipe {
namespace {

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
  EXPECT_EQ(
      DecisionJson(0, absl::UnixEpoch(), start),
      R"({"sequence":0,"time":"1970-01-01T00:00:00.000000Z","type":"start_generation",)"
      R"("generation":1,"step":0,"members":["w0","w1"],"plan_epoch":0,"frontier":0,"cuts":[4],)"
      R"("schedule":"1f1b"})");
  EXPECT_EQ(
      DecisionJson(2, absl::UnixEpoch(), EndGeneration{Generation(1), "w1 was lost"}),
      R"({"sequence":2,"time":"1970-01-01T00:00:00.000000Z","type":"end_generation","generation":1,)"
      R"("reason":"w1 was lost"})");
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

EventRecord MakeRecord(int64_t sequence) {
  return {sequence,
          absl::FromUnixSeconds(1700000000),
          OrderGiven{"r1", "alice", "enough", {}, StopRun{true}},
          {MakeVerdict(), EndRun{false, "enough"}}};
}

std::string LinesOf(const EventRecord& record) {
  std::string lines;
  for (const Decision& decision : record.decisions)
    absl::StrAppend(&lines, DecisionJson(record.sequence, record.now, decision), "\n");
  return lines;
}

class DecisionLinesTest : public testing::Test {
 protected:
  std::string Contents() const { return testutil::ReadFile(path_); }

  testutil::TempDir dir_;
  const std::string path_ = dir_.File("decisions.jsonl");
};

TEST_F(DecisionLinesTest, OneLinePerDecision) {
  const auto lines = *DecisionLines::Open(path_);
  EXPECT_EQ(lines->last_sequence(), -1);
  ASSERT_TRUE(lines->Append(MakeRecord(0)).ok());
  ASSERT_TRUE(lines->Append({1, absl::UnixEpoch(), OrderGiven{}, {}}).ok());
  EXPECT_EQ(lines->last_sequence(), 0);
  EXPECT_EQ(Contents(), LinesOf(MakeRecord(0)));
}

TEST_F(DecisionLinesTest, CutsWholeRecordsAndWhatIsNoLine) {
  const std::string two = LinesOf(MakeRecord(0)) + LinesOf(MakeRecord(3));
  for (const std::string& tail :
       {std::string(), std::string("{\"sequence\":4,\"ty"), std::string("no decision\n")}) {
    testutil::WriteFile(path_, two + tail);
    const auto lines = *DecisionLines::Open(path_);
    EXPECT_EQ(lines->last_sequence(), tail == "no decision\n" ? -1 : 3);
    ASSERT_TRUE(lines->CutFrom(4).ok());
    EXPECT_EQ(Contents(), two);
    ASSERT_TRUE(lines->CutFrom(3).ok());
    EXPECT_EQ(Contents(), LinesOf(MakeRecord(0)));
    ASSERT_TRUE(lines->Append(MakeRecord(3)).ok());
    EXPECT_EQ(Contents(), two);
  }
}

TEST_F(DecisionLinesTest, FullDiskAndMissingFolderAreNamed) {
  const auto lines = *DecisionLines::Open("/dev/full");
  const absl::Status status = lines->Append(MakeRecord(0));
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(status.message(), "cannot write to /dev/full: No space left on device");
  EXPECT_EQ(DecisionLines::Open("/no/such/folder/decisions.jsonl").status().message(),
            "cannot open /no/such/folder/decisions.jsonl: No such file or directory");
}

}  // namespace
}  // namespace smartpipe
