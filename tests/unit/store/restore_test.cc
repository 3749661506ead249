#include "freeze_service/store/restore.h"

#include <memory>
#include <utility>
#include <vector>

#include "freeze_service/core/replay.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/store/log_harness.h"

namespace smartpipe {
namespace {

using ::testing::HasSubstr;
using testutil::LogSettings;

constexpr int64_t kIntervals = 20;

CoordinatorOptions Options() { return *MakeCoordinatorOptions(LogSettings()); }

TEST(RestoreCoordinator, IsTheOneThatWasThereWhereverTheLogEnds) {
  const auto whole = MakeMemoryDecisionStore();
  testutil::RecordRun(kIntervals, 0, *whole);
  const auto coordinator = *Coordinator::Create(Options());
  for (const EventRecord& record : testutil::ReadAll(*whole)) {
    ASSERT_EQ(Replay(record, *coordinator), "");
    const StoredSnapshot snapshot{record.sequence + 1, coordinator->Snapshot()};
    for (const bool with_snapshot : {false, true}) {
      const auto cut = MakeMemoryDecisionStore();
      testutil::Copy(*whole, 0, record.sequence, *cut);
      ASSERT_TRUE(cut->Append({record}, with_snapshot ? &snapshot : nullptr).ok());
      const auto restored = RestoreCoordinator(Options(), *cut);
      ASSERT_TRUE(restored.ok()) << restored.status();
      ASSERT_EQ((*restored)->Dump(), coordinator->Dump());
    }
  }
  EXPECT_EQ(coordinator->state(), RunState::kFinished);
  EXPECT_GT(coordinator->plan()->frontier, LayerIndex(0));
}

TEST(RestoreCoordinator, GoesOnBehindASnapshot) {
  const auto plain = MakeMemoryDecisionStore(), snapped = MakeMemoryDecisionStore();
  testutil::RecordRun(kIntervals, 0, *plain);
  testutil::RecordRun(kIntervals, 7, *snapped);
  ASSERT_TRUE(snapped->ReadSnapshot().has_value());
  EXPECT_EQ(snapped->ReadSnapshot()->num_records, 42);
  EXPECT_EQ((*RestoreCoordinator(Options(), *snapped))->Dump(),
            (*RestoreCoordinator(Options(), *plain))->Dump());
}

TEST(RestoreCoordinator, AnEmptyLogIsANewRun) {
  const auto restored = RestoreCoordinator(Options(), *MakeMemoryDecisionStore());
  ASSERT_TRUE(restored.ok()) << restored.status();
  EXPECT_EQ((*restored)->Dump(), (*Coordinator::Create(Options()))->Dump());
}

TEST(RestoreCoordinator, NamesTheFirstRecordThatDiffers) {
  const auto whole = MakeMemoryDecisionStore(), changed = MakeMemoryDecisionStore();
  testutil::RecordRun(kIntervals, 0, *whole);
  for (EventRecord record : testutil::ReadAll(*whole)) {
    if (record.sequence >= 9 && !record.decisions.empty()) {
      auto& verdict = std::get<Verdict>(record.decisions[0]);
      verdict.eta[2] = 0.75;
    }
    ASSERT_TRUE(changed->Append({record}, nullptr).ok());
    if (record.sequence == 12) break;
  }
  const absl::Status status = RestoreCoordinator(Options(), *changed).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("record 9 of decisions.db does not follow from those before it: decision 0 "
                        "(verdict), eta: recorded ["));
}

TEST(Replay, TellsTheFirstFieldThatDiffers) {
  const auto whole = MakeMemoryDecisionStore();
  testutil::RecordRun(4, 0, *whole);
  const std::vector<EventRecord> records = testutil::ReadAll(*whole);
  const auto difference = [&](const auto& change) {
    const auto coordinator = *Coordinator::Create(Options());
    EXPECT_EQ(Replay(records[0], *coordinator), "");
    EventRecord record = records[1];  // start of the generation and two verdicts
    change(record);
    return Replay(record, *coordinator);
  };
  EXPECT_EQ(difference([](EventRecord&) {}), "");
  EXPECT_EQ(difference([](EventRecord& record) {
              std::get<StartGeneration>(record.decisions[0]).members.pop_back();
            }),
            "decision 0 (start of a generation), members: recorded [w0], replayed [w0, w1]");
  EXPECT_EQ(difference([](EventRecord& record) {
              std::get<Verdict>(record.decisions[1]).plan->frontier = LayerIndex(3);
            }),
            "decision 1 (verdict), plan.frontier: recorded 3, replayed 0");
  EXPECT_EQ(difference([](EventRecord& record) {
              std::get<Verdict>(record.decisions[2]).predicted_step_s = -0.0;
            }),
            "decision 2 (verdict), predicted_step_s: recorded -0, replayed 0");
  EXPECT_EQ(difference([](EventRecord& record) { record.decisions[2] = EndRun{}; }),
            "decision 2 (end of the run), kind: recorded end of the run, replayed verdict");
  EXPECT_EQ(difference([](EventRecord& record) { record.decisions.pop_back(); }),
            "number of decisions: recorded 2, replayed 3");
  EXPECT_THAT(difference([](EventRecord& record) {
                record.event = WorkerFinished{WorkerId("w9"), Generation(1), {}};
              }),
              HasSubstr("the event is refused: "));
}

}  // namespace
}  // namespace smartpipe
