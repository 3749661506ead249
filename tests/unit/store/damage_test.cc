// A log that was cut off or changed: noticed, named, and repaired to its last whole record.
#include <algorithm>
#include <filesystem>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "freeze_service/store/decision_store.h"
#include "freeze_service/store/restore.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testutil/process.h"
#include "tests/testutil/seed.h"
#include "tests/unit/store/log_harness.h"

namespace smartpipe {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using testutil::LogSettings;

constexpr int64_t kIntervals = 60;
constexpr int64_t kRecords = 4 + 2 * kIntervals;
constexpr int kRounds = 60;

class DamageTest : public testing::Test {
 protected:
  DamageTest() {
    testutil::RecordRun(kIntervals, 50, *Open(original_.path()).store);
    texts_ = testutil::Texts(*Open(original_.path()).store);
    // As after kill -9: the newest records are in the write-ahead log only.
    const OpenedDecisionStore writer = Open(killed_source_.path());
    testutil::RecordRun(kIntervals, 50, *writer.store);
    for (const char* name : {"decisions.db", "decisions.db-wal", "decisions.jsonl"})
      fs::copy_file(killed_source_.File(name), killed_.File(name));
  }

  static OpenedDecisionStore Open(const std::string& dir) {
    return OpenDecisionStore(dir, LogSettings()).value();
  }
  size_t Below(size_t n) { return std::uniform_int_distribution<size_t>(0, n - 1)(random_); }

  /// Cuts the file off, or changes some bits of one place.
  void Damage(const std::string& path) {
    std::string bytes = testutil::ReadFile(path);
    if (Below(2) == 0) {
      bytes.resize(Below(bytes.size()));
    } else {
      const size_t at = Below(bytes.size()), size = 1 + Below(40);
      for (size_t i = at; i < std::min(bytes.size(), at + size); ++i)
        bytes[i] = static_cast<char>(bytes[i] ^ (1 + Below(255)));
    }
    testutil::WriteFile(path, bytes);
  }

  /// After damage the store holds the first records and goes on behind them, or says that nothing
  /// can be saved. Less than all is never held in silence. Returns how many; -1 = none.
  int64_t CheckRepair(const std::string& dir) {
    absl::StatusOr<OpenedDecisionStore> opened = OpenDecisionStore(dir, LogSettings());
    if (!opened.ok()) {
      EXPECT_THAT(std::string(opened.status().message()), HasSubstr("decisions.db"));
      return -1;
    }
    const std::vector<std::string> texts = testutil::Texts(*opened->store);
    const int64_t count = opened->store->num_records();
    EXPECT_EQ(static_cast<int64_t>(texts.size()), count);
    EXPECT_LE(count, kRecords);
    EXPECT_TRUE(std::equal(texts.begin(), texts.end(), texts_.begin()));
    if (count < kRecords) {
      EXPECT_THAT(opened->repair, HasSubstr(dir));
      EXPECT_TRUE(fs::exists(dir + "/decisions.db.damaged") ||
                  fs::exists(dir + "/decisions.jsonl.damaged"));
    }
    const auto coordinator =
        RestoreCoordinator(*MakeCoordinatorOptions(LogSettings()), *opened->store);
    EXPECT_TRUE(coordinator.ok()) << coordinator.status();
    const EventRecord next{
        count, absl::UnixEpoch(), OrderGiven{"r1", "alice", "enough", {}, StopRun{true}}, {}};
    EXPECT_TRUE(opened->store->Append({next}, nullptr).ok());
    opened->store.reset();
    const absl::StatusOr<OpenedDecisionStore> again = OpenDecisionStore(dir, LogSettings());
    EXPECT_TRUE(again.ok()) << again.status();
    if (!again.ok()) return count;
    EXPECT_EQ(again->repair, "") << "repaired once";
    EXPECT_EQ(again->store->num_records(), count + 1);
    return count;
  }

  /// Damages copies of `name`; how often less than everything was left, and how often nothing.
  void Play(const testutil::TempDir& source, const std::string& name, int* num_shorter,
            int* num_lost) {
    for (int round = 0; round < kRounds && !HasFailure(); ++round) {
      SCOPED_TRACE(absl::StrCat(name, ", round ", round));
      const testutil::TempDir dir;
      for (const auto& entry : fs::directory_iterator(source.path()))
        fs::copy_file(entry.path(), fs::path(dir.path()) / entry.path().filename());
      Damage(dir.File(name));
      const int64_t count = CheckRepair(dir.path());
      *num_shorter += 0 <= count && count < kRecords;
      *num_lost += count < 0;
    }
    std::cout << name << ": " << kRounds << " times damaged, " << *num_shorter
              << " times fewer records, " << *num_lost << " times none\n";
  }

  std::mt19937_64 random_{testutil::TestSeed()};
  testutil::TempDir original_, killed_source_, killed_;
  std::vector<std::string> texts_;
};

TEST_F(DamageTest, OfTheDatabase) {
  int num_shorter = 0, num_lost = 0;
  Play(original_, "decisions.db", &num_shorter, &num_lost);
  EXPECT_GT(num_shorter, kRounds / 4);
  EXPECT_LT(num_lost, kRounds / 5) << "only the first page and the roots of the tables are so dear";
}

TEST_F(DamageTest, OfTheWriteAheadLog) {
  int num_shorter = 0, num_lost = 0;
  Play(killed_, "decisions.db-wal", &num_shorter, &num_lost);
  EXPECT_GT(num_shorter, kRounds / 4);
}

TEST_F(DamageTest, OfTheCopyIsHealed) {
  int num_shorter = 0, num_lost = 0;
  Play(original_, "decisions.jsonl", &num_shorter, &num_lost);
  EXPECT_EQ(num_shorter + num_lost, 0);
}

TEST_F(DamageTest, ARepairThatWasCutShortGoesOn) {
  const testutil::TempDir dir;
  // The repaired database was complete, the damaged one is away already.
  fs::copy_file(original_.File("decisions.db"), dir.File("decisions.db.repaired"));
  fs::copy_file(original_.File("decisions.jsonl"), dir.File("decisions.jsonl"));
  EXPECT_EQ(testutil::Texts(*Open(dir.path()).store), texts_);
  EXPECT_FALSE(fs::exists(dir.File("decisions.db.repaired")));
}

}  // namespace
}  // namespace smartpipe
