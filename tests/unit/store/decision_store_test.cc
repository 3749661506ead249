// Both stores: what goes in comes out; and what the durable one does with its files.
#include "freeze_service/store/decision_store.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/str_cat.h"
#include "freeze_service/store/event_codec.h"
#include "freeze_service/store/sqlite.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testutil/process.h"
#include "tests/unit/store/log_harness.h"

namespace smartpipe {
namespace {

using ::testing::HasSubstr;
using testutil::LogSettings;
using testutil::Texts;

constexpr int64_t kIntervals = 8;
constexpr int64_t kRecords = 4 + 2 * kIntervals;

/// The durable store (true) or its twin (false).
class DecisionStoreTest : public testing::TestWithParam<bool> {
 protected:
  std::unique_ptr<DecisionStore> Open() {
    if (!GetParam()) return MakeMemoryDecisionStore();
    OpenedDecisionStore opened = OpenDecisionStore(dir_.path(), LogSettings()).value();
    EXPECT_EQ(opened.repair, "");
    return std::move(opened.store);
  }

  testutil::TempDir dir_;
};

INSTANTIATE_TEST_SUITE_P(Stores, DecisionStoreTest, testing::Bool(),
                         [](const auto& info) { return info.param ? "Sqlite" : "Memory"; });

TEST_P(DecisionStoreTest, GivesBackWhatItGot) {
  const auto store = Open();
  EXPECT_EQ(store->num_records(), 0);
  EXPECT_FALSE(store->ReadSnapshot().has_value());
  testutil::RecordRun(kIntervals, 5, *store);
  EXPECT_EQ(store->num_records(), kRecords);
  const auto twin = MakeMemoryDecisionStore();
  testutil::RecordRun(kIntervals, 5, *twin);
  EXPECT_EQ(Texts(*store), Texts(*twin));
  const std::optional<StoredSnapshot> snapshot = store->ReadSnapshot();
  ASSERT_TRUE(snapshot.has_value());
  EXPECT_EQ(snapshot->num_records, 20);
  EXPECT_EQ(EncodeState(snapshot->state), EncodeState(twin->ReadSnapshot()->state));
}

TEST_P(DecisionStoreTest, SequenceMustBeGapless) {
  const auto store = Open();
  EXPECT_EQ(store->Append({{1, absl::UnixEpoch(), OrderGiven{}, {}}}, nullptr).message(),
            "record 1 cannot be stored, the next is 0");
  EXPECT_TRUE(store->Append({{0, absl::UnixEpoch(), OrderGiven{}, {}}}, nullptr).ok());
  EXPECT_EQ(store->Append({{0, absl::UnixEpoch(), OrderGiven{}, {}}}, nullptr).code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_P(DecisionStoreTest, ManyRecordsAreStoredTogetherOrNoneIs) {
  const auto twin = MakeMemoryDecisionStore();
  testutil::RecordRun(kIntervals, 7, *twin);
  std::vector<EventRecord> records = testutil::ReadAll(*twin);
  const StoredSnapshot snapshot = *twin->ReadSnapshot();
  const auto store = Open();
  std::swap(records[3], records[4]);
  EXPECT_EQ(store->Append(records, &snapshot).message(),
            "record 4 cannot be stored, the next is 3");
  EXPECT_EQ(store->num_records(), 0);
  EXPECT_FALSE(store->ReadSnapshot().has_value());
  std::swap(records[3], records[4]);
  EXPECT_TRUE(store->Append(records, &snapshot).ok());
  EXPECT_EQ(Texts(*store), Texts(*twin));
  EXPECT_EQ(store->ReadSnapshot()->num_records, snapshot.num_records);
}

TEST_P(DecisionStoreTest, ReadsTheNewestVerdictOfABoundaryWithItsFirstStatistics) {
  const auto store = Open();
  testutil::RecordRun(kIntervals, 5, *store);
  std::map<IntervalIndex, Verdict> verdicts;
  for (const EventRecord& record : testutil::ReadAll(*store)) {
    for (const Decision& decision : record.decisions) {
      if (const auto* verdict = std::get_if<Verdict>(&decision); verdict != nullptr)
        verdicts[verdict->boundary] = *verdict;
    }
  }
  ASSERT_EQ(verdicts.size(), kIntervals);
  Verdict anew = verdicts[IntervalIndex(2)];
  const std::vector<double> statistics = std::exchange(anew.eta, {});
  ASSERT_FALSE(statistics.empty());
  anew.reason = "given anew";
  ASSERT_TRUE(
      store->Append({{store->num_records(), absl::UnixEpoch(), OrderGiven{}, {anew}}}, nullptr)
          .ok());
  anew.eta = statistics;
  verdicts[IntervalIndex(2)] = anew;
  const auto check = [&verdicts](const DecisionStore& opened) {
    for (const auto& [boundary, verdict] : verdicts) {
      const absl::StatusOr<Verdict> read = opened.ReadVerdict(boundary);
      ASSERT_TRUE(read.ok()) << read.status();
      EXPECT_EQ(DecisionJson(0, absl::UnixEpoch(), *read),
                DecisionJson(0, absl::UnixEpoch(), verdict));
    }
    for (const int64_t none : {int64_t{-1}, kIntervals}) {
      EXPECT_EQ(opened.ReadVerdict(IntervalIndex(none)).status(),
                absl::NotFoundError(absl::StrCat("boundary ", none, " has no verdict")));
    }
  };
  check(*store);
  if (GetParam()) check(*OpenRecordedRun(dir_.path())->store);
}

TEST_P(DecisionStoreTest, AVisitorsErrorEndsTheReading) {
  const auto store = Open();
  testutil::RecordRun(kIntervals, 0, *store);
  int num_seen = 0;
  const absl::Status status = store->Read(3, [&](const EventRecord& record) {
    EXPECT_EQ(record.sequence, 3 + num_seen++);
    return num_seen == 2 ? absl::AbortedError("enough") : absl::OkStatus();
  });
  EXPECT_EQ(status, absl::AbortedError("enough"));
  EXPECT_EQ(num_seen, 2);
}

class SqliteStoreTest : public testing::Test {
 protected:
  OpenedDecisionStore Open() { return OpenDecisionStore(dir_.path(), LogSettings()).value(); }
  std::string File(const std::string& name) const { return dir_.File(name); }

  testutil::TempDir dir_;
};

TEST_F(SqliteStoreTest, IsThereAfterItWasClosed) {
  testutil::RecordRun(kIntervals, 5, *Open().store);
  const std::string lines = testutil::ReadFile(File("decisions.jsonl"));
  const OpenedDecisionStore again = Open();
  EXPECT_EQ(again.repair, "");
  const auto twin = MakeMemoryDecisionStore();
  testutil::RecordRun(kIntervals, 5, *twin);
  EXPECT_EQ(Texts(*again.store), Texts(*twin));
  EXPECT_TRUE(again.store->ReadSnapshot().has_value());
  EXPECT_EQ(testutil::ReadFile(File("decisions.jsonl")), lines);
  // start_generation, a verdict per boundary, end_run
  EXPECT_EQ(std::count(lines.begin(), lines.end(), '\n'), 1 + kIntervals + 1);
}

TEST_F(SqliteStoreTest, TheLinesAreBroughtUpToDate) {
  testutil::RecordRun(kIntervals, 0, *Open().store);
  const std::string lines = testutil::ReadFile(File("decisions.jsonl"));
  for (size_t size = 0; size <= lines.size(); size += 61) {
    testutil::WriteFile(File("decisions.jsonl"), lines.substr(0, size));
    EXPECT_EQ(Open().repair, "");
    ASSERT_EQ(testutil::ReadFile(File("decisions.jsonl")), lines) << size;
  }
}

TEST_F(SqliteStoreTest, OneServiceAtATimeAndWithTheSameSettings) {
  {
    const OpenedDecisionStore first = Open();
    const absl::Status second = OpenDecisionStore(dir_.path(), LogSettings()).status();
    EXPECT_EQ(second.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(std::string(second.message()), HasSubstr("another freeze_service serves the run"));
  }
  RunSettings other = LogSettings();
  other.num_cores = 7;
  EXPECT_THAT(std::string(OpenDecisionStore(dir_.path(), other).status().message()),
              HasSubstr("other settings: --cores 2 was recorded, now it is --cores 7; "));
  EXPECT_EQ(Open().repair, "");
  EXPECT_EQ(OpenDecisionStore(File("nowhere"), other).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(SqliteStoreTest, ReadsWhileAnotherWrites) {
  const OpenedDecisionStore writer = Open();
  testutil::RecordRun(kIntervals, 5, *writer.store);
  const absl::StatusOr<RecordedRun> reader = OpenRecordedRun(dir_.path());
  ASSERT_TRUE(reader.ok()) << reader.status();
  EXPECT_EQ(reader->settings, LogSettings());
  EXPECT_EQ(reader->damage, "");
  EXPECT_EQ(Texts(*reader->store), Texts(*writer.store));
  EXPECT_EQ(OpenRecordedRun(File("nowhere")).status().code(), absl::StatusCode::kNotFound);
}

// The files may not grow: what does not fit is not there, and the log goes on once there is room.
TEST_F(SqliteStoreTest, AFullDiskIsAnErrorAndNothingIsAppended) {
  const OpenedDecisionStore opened = Open();
  const EventRecord record{
      0,
      absl::UnixEpoch(),
      OrderGiven{
          .request_id = std::string(20'000, 'x'), .who = {}, .why = {}, .step = {}, .order = {}},
      {}};
  rlimit old_limit;
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &old_limit), 0);
  const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit limit = old_limit;
  limit.rlim_cur = 4096;
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
  const absl::Status status = opened.store->Append({record}, nullptr);
  setrlimit(RLIMIT_FSIZE, &old_limit);
  std::signal(SIGXFSZ, old_handler);
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(std::string(status.message()), HasSubstr(File("decisions.db")));
  EXPECT_EQ(opened.store->num_records(), 0);
  EXPECT_TRUE(opened.store->Append({record}, nullptr).ok());
  EXPECT_EQ(Texts(*opened.store), std::vector<std::string>{testutil::Text(record)});
}

TEST(Sqlite, AFullDiskIsToldAsTheSystemTellsIt) {
  const testutil::TempDir dir;
  const auto database =
      SqliteDatabase::Open(dir.File("full.db"), SqliteDatabase::Mode::kReadWrite).value();
  ASSERT_TRUE(database->Run("CREATE TABLE a (b); PRAGMA max_page_count = 2").ok());
  const absl::Status status = database->Run("CREATE TABLE c (d)");
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(status.message(), HasSubstr("full: No space left on device"));
}

}  // namespace
}  // namespace smartpipe
