#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "freeze_service/store/decision_store.h"
#include "freeze_service/store/verdict_index.h"
#include "services/base/status_macros.h"

namespace smartpipe {
namespace {

class MemoryDecisionStore final : public DecisionStore {
 public:
  absl::Status Append(absl::Span<const EventRecord> records,
                      const StoredSnapshot* snapshot) override {
    SP_RETURN_IF_ERROR(CheckSequences(records, num_records()));
    for (const EventRecord& record : records) {
      verdicts_.Add(record.sequence, record.decisions);
      records_.push_back(record);
    }
    if (snapshot != nullptr) snapshot_ = *snapshot;
    return absl::OkStatus();
  }

  int64_t num_records() const override { return static_cast<int64_t>(records_.size()); }

  absl::Status Read(int64_t first,
                    const std::function<absl::Status(const EventRecord&)>& visit) const override {
    for (int64_t i = first; i < num_records(); ++i) SP_RETURN_IF_ERROR(visit(records_[i]));
    return absl::OkStatus();
  }

  absl::StatusOr<Verdict> ReadVerdict(IntervalIndex boundary) const override {
    return verdicts_.Read(boundary, [this](int64_t sequence) { return records_[sequence]; });
  }

  std::optional<StoredSnapshot> ReadSnapshot() const override { return snapshot_; }

 private:
  std::vector<EventRecord> records_;
  std::optional<StoredSnapshot> snapshot_;
  VerdictIndex verdicts_;
};

}  // namespace

absl::Status CheckSequences(absl::Span<const EventRecord> records, int64_t next) {
  for (const EventRecord& record : records) {
    if (record.sequence != next) {
      return absl::InvalidArgumentError(
          absl::StrCat("record ", record.sequence, " cannot be stored, the next is ", next));
    }
    ++next;
  }
  return absl::OkStatus();
}

std::unique_ptr<DecisionStore> MakeMemoryDecisionStore() {
  return std::make_unique<MemoryDecisionStore>();
}

}  // namespace smartpipe
