#include "tests/unit/store/log_harness.h"

#include <memory>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "freeze_service/store/event_codec.h"
#include "gtest/gtest.h"
#include "tests/unit/core/core_harness.h"

namespace smartpipe::testutil {

RunSettings LogSettings() {
  const absl::StatusOr<RunConfig> config = ParseRunConfig(
      "[pipeline]\nstages = 2\n[freeze]\npolicy = \"smartpipe\"\ntau = 0.1\n", "log_harness");
  EXPECT_TRUE(config.ok()) << config.status();
  return {.config_toml = ToToml(*config), .num_cores = 2};
}

void RecordRun(int64_t num_intervals, int64_t snapshot_every, DecisionStore& store) {
  constexpr int32_t kLayers = 6;
  constexpr int64_t kIntervalSteps = 10;
  const auto coordinator = *Coordinator::Create(*MakeCoordinatorOptions(LogSettings()));
  absl::Time now = absl::FromUnixSeconds(1'700'000'000);
  const auto apply = [&](const Event& event) {
    now += absl::Milliseconds(7);
    const absl::StatusOr<std::vector<Decision>> decisions = coordinator->Apply(event, now);
    ASSERT_TRUE(decisions.ok()) << decisions.status();
    const int64_t sequence = store.num_records();
    const bool snaps = snapshot_every > 0 && (sequence + 1) % snapshot_every == 0;
    const StoredSnapshot snapshot{sequence + 1, coordinator->Snapshot()};
    const absl::Status stored =
        store.Append({{sequence, now, event, *decisions}}, snaps ? &snapshot : nullptr);
    ASSERT_TRUE(stored.ok()) << stored;
  };
  const std::vector<WorkerId> members = {WorkerId("w0"), WorkerId("w1")};
  std::vector<LayerInfo> layers = MakeLayers(kLayers);
  for (const WorkerId& member : members) {
    apply(WorkerJoined{
        member, 1, {num_intervals * kIntervalSteps, 4 * kIntervalSteps, kIntervalSteps}, layers});
  }
  for (int64_t interval = 0; interval < num_intervals; ++interval) {
    std::vector<double> eta(kLayers, 0.5);
    for (int32_t layer = 0; layer < kLayers && 3 * layer + 2 < interval; ++layer) eta[layer] = 0.05;
    layers[interval % kLayers].cost.forward_s = 1e-3 * static_cast<double>(1 + interval % 5);
    for (int32_t rank = 0; rank < 2; ++rank) {
      apply(MakeReport(*coordinator, members, Rank(rank), IntervalIndex(interval), eta, layers));
    }
  }
  for (const WorkerId& member : members) {
    apply(WorkerFinished{member, Generation(1), {.train_s = 1.5, .weights_sha256 = "ab"}});
  }
}

std::vector<EventRecord> ReadAll(const DecisionStore& store) {
  std::vector<EventRecord> records;
  const absl::Status read = store.Read(0, [&records](const EventRecord& record) {
    records.push_back(record);
    return absl::OkStatus();
  });
  EXPECT_TRUE(read.ok()) << read;
  return records;
}

std::string Text(const EventRecord& record) {
  return absl::StrCat(record.sequence, " ", absl::ToUnixNanos(record.now), " ",
                      absl::BytesToHexString(EncodeEvent(record.event)), " ",
                      absl::BytesToHexString(EncodeDecisions(record.decisions)));
}

std::vector<std::string> Texts(const DecisionStore& store) {
  std::vector<std::string> texts;
  for (const EventRecord& record : ReadAll(store)) texts.push_back(Text(record));
  return texts;
}

void Copy(const DecisionStore& from, int64_t first, int64_t end, DecisionStore& to) {
  const std::vector<EventRecord> records = ReadAll(from);
  for (int64_t i = first; i < end; ++i) {
    const absl::Status stored = to.Append({records[i]}, nullptr);
    ASSERT_TRUE(stored.ok()) << stored;
  }
}

}  // namespace smartpipe::testutil
