// `smartpipe replay` as a person calls it.
#include <filesystem>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/testutil/process.h"
#include "tests/unit/store/log_harness.h"

namespace smartpipe {
namespace {

using ::testing::HasSubstr;

class ReplayCommandTest : public testing::Test {
 protected:
  /// Exit code and output.
  std::pair<int, std::string> Replay(const std::vector<std::string>& more = {}) {
    std::vector<std::string> argv = {testutil::Binary("smartpipe"), "replay"};
    argv.insert(argv.end(), more.begin(), more.end());
    testutil::Process process(argv);
    const int exit_code = process.Wait(absl::Seconds(30)).value_or(-1);
    return {exit_code, process.output()};
  }
  std::unique_ptr<DecisionStore> Open() {
    return OpenDecisionStore(run_.path(), testutil::LogSettings()).value().store;
  }

  testutil::TempDir run_;
};

TEST_F(ReplayCommandTest, ProvesAWholeRun) {
  testutil::RecordRun(20, 16, *Open());
  const auto [exit_code, output] = Replay({run_.path()});
  EXPECT_EQ(exit_code, 0) << output;
  EXPECT_THAT(output, HasSubstr(": 44 events replayed, the same 20 verdicts come out."));
  const auto [json_code, text] = Replay({run_.path(), "--json"});
  EXPECT_EQ(json_code, 0);
  const auto json = nlohmann::json::parse(text);
  EXPECT_EQ(json["run"], run_.path());
  EXPECT_EQ(json["records"], 44);
  EXPECT_EQ(json["verdicts"], 20);
  EXPECT_EQ(json["state"], "all 2 workers finished");
  EXPECT_EQ(json["equal"], true);
  for (const char* key : {"different_record", "difference", "damage"})
    EXPECT_TRUE(json[key].is_null()) << key;
}

TEST_F(ReplayCommandTest, ShowsTheFirstDifference) {
  const auto twin = MakeMemoryDecisionStore();
  testutil::RecordRun(20, 0, *twin);
  {
    const auto store = Open();
    for (EventRecord record : testutil::ReadAll(*twin)) {
      if (record.sequence == 7) std::get<Verdict>(record.decisions[0]).frontier = LayerIndex(3);
      ASSERT_TRUE(store->Append({record}, nullptr).ok());
    }
  }
  const auto [exit_code, output] = Replay({run_.path()});
  EXPECT_EQ(exit_code, 1);
  EXPECT_THAT(output, HasSubstr("7 events replayed"));
  EXPECT_THAT(output, HasSubstr("Record 7 differs: decision 0 (verdict), frontier: recorded 3, "
                                "replayed 0"));
  const auto json = nlohmann::json::parse(Replay({run_.path(), "--json"}).second);
  EXPECT_EQ(json["equal"], false);
  EXPECT_EQ(json["different_record"], 7);
}

TEST_F(ReplayCommandTest, ASnapshotThatDoesNotFollowIsADifference) {
  testutil::RecordRun(20, 0, *Open());
  const auto twin = MakeMemoryDecisionStore();
  testutil::RecordRun(20, 16, *twin);  // of another record
  {
    const auto store = Open();
    const StoredSnapshot snapshot{store->num_records() + 1, twin->ReadSnapshot()->state};
    ASSERT_TRUE(store
                    ->Append({{store->num_records(),
                               absl::UnixEpoch(),
                               WorkerLost{WorkerId("w0"), 1, "late"},
                               {}}},
                             &snapshot)
                    .ok());
  }
  const auto [exit_code, output] = Replay({run_.path()});
  EXPECT_EQ(exit_code, 1);
  EXPECT_THAT(output, HasSubstr("Record 44 differs: the snapshot behind it"));
}

TEST_F(ReplayCommandTest, NamesDamageAndChangesNothing) {
  testutil::RecordRun(20, 0, *Open());
  const std::string path = run_.File("decisions.db");
  std::string bytes = testutil::ReadFile(path);
  const size_t words = bytes.find("the workers' profiles");  // in the reason of record 1
  ASSERT_NE(words, std::string::npos);
  bytes[words] = 'T';
  testutil::WriteFile(path, bytes);
  const auto [exit_code, output] = Replay({run_.path()});
  EXPECT_EQ(exit_code, 1);
  EXPECT_THAT(output, HasSubstr("1 events replayed"));
  EXPECT_THAT(output, HasSubstr("The log is damaged: "));
  EXPECT_THAT(output, HasSubstr("record 1 is damaged"));
  EXPECT_EQ(testutil::ReadFile(path), bytes);
  testutil::WriteFile(path, "no database at all, but long enough to be looked at as one\n");
  EXPECT_EQ(Replay({run_.path()}).first, 1);
}

TEST_F(ReplayCommandTest, WhatIsNoRunEndsWithTwo) {
  EXPECT_EQ(Replay({run_.path()}).first, 2);
  EXPECT_THAT(Replay({run_.path()}).second, HasSubstr("decisions.db"));
  EXPECT_EQ(Replay({"/nonexistent"}).first, 2);
  EXPECT_EQ(Replay().first, 2);
}

}  // namespace
}  // namespace smartpipe
