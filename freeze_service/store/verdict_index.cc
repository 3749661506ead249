#include "freeze_service/store/verdict_index.h"

#include <utility>
#include <variant>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "services/base/status_macros.h"

namespace smartpipe {
namespace {

absl::StatusOr<Verdict> VerdictOf(EventRecord record, IntervalIndex boundary) {
  for (Decision& decision : record.decisions) {
    auto* const verdict = std::get_if<Verdict>(&decision);
    if (verdict != nullptr && verdict->boundary == boundary) return std::move(*verdict);
  }
  return absl::DataLossError(
      absl::StrCat("record ", record.sequence, " has no verdict of boundary ", boundary.value()));
}

}  // namespace

void VerdictIndex::Add(int64_t sequence, absl::Span<const Decision> decisions) {
  for (const Decision& decision : decisions) {
    const auto* const verdict = std::get_if<Verdict>(&decision);
    if (verdict == nullptr) continue;
    const auto boundary = static_cast<size_t>(verdict->boundary.value());
    if (boundary > records_.size()) continue;  // no coordinator decides that
    if (boundary == records_.size()) records_.push_back({sequence, sequence});
    records_[boundary].newest = sequence;
    if (!verdict->eta.empty()) records_[boundary].with_statistics = sequence;
  }
}

absl::StatusOr<Verdict> VerdictIndex::Read(IntervalIndex boundary, ReadRecord read) const {
  if (boundary.value() < 0 || boundary.value() >= static_cast<int64_t>(records_.size())) {
    return absl::NotFoundError(absl::StrCat("boundary ", boundary.value(), " has no verdict"));
  }
  const Records& records = records_[boundary.value()];
  SP_ASSIGN_OR_RETURN(EventRecord record, read(records.newest));
  SP_ASSIGN_OR_RETURN(Verdict verdict, VerdictOf(std::move(record), boundary));
  if (records.with_statistics == records.newest) return verdict;
  SP_ASSIGN_OR_RETURN(record, read(records.with_statistics));
  SP_ASSIGN_OR_RETURN(Verdict first, VerdictOf(std::move(record), boundary));
  verdict.eta = std::move(first.eta);
  return verdict;
}

}  // namespace smartpipe
