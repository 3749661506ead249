#include "freeze_service/store/restore.h"

#include <optional>
#include <string>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "freeze_service/core/reason.h"
#include "freeze_service/core/replay.h"
#include "freeze_service/core/verdict_history.h"
#include "services/base/status_macros.h"

namespace smartpipe {

absl::StatusOr<std::unique_ptr<Coordinator>> RestoreCoordinator(const CoordinatorOptions& options,
                                                                const DecisionStore& store) {
  std::optional<StoredSnapshot> snapshot = store.ReadSnapshot();
  const int64_t num_proven = snapshot.has_value() ? snapshot->num_records : 0;
  VerdictHistory verdicts;
  std::unique_ptr<Coordinator> coordinator;
  const auto start = [&]() -> absl::Status {
    if (snapshot.has_value()) {
      SP_ASSIGN_OR_RETURN(coordinator, Coordinator::Restore(options, std::move(snapshot->state),
                                                            std::move(verdicts)));
    } else {
      SP_ASSIGN_OR_RETURN(coordinator, Coordinator::Create(options));
    }
    return absl::OkStatus();
  };
  SP_RETURN_IF_ERROR(store.Read(0, [&](const EventRecord& record) -> absl::Status {
    if (record.sequence < num_proven) {
      for (const Decision& decision : record.decisions) {
        const auto* verdict = std::get_if<Verdict>(&decision);
        if (verdict == nullptr) continue;
        if (verdict->boundary.value() < 0 || verdict->boundary.value() > verdicts.num_decided()) {
          return absl::DataLossError(absl::StrCat(
              "record ", record.sequence, " of decisions.db has the verdict of boundary ",
              verdict->boundary.value(), ", after ", Counted(verdicts.num_decided(), "verdict"),
              "; put back a copy of it, or start a new run in another folder"));
        }
        // A later generation gives some anew, and may begin before or behind the one before it.
        verdicts.Add(*verdict);
      }
      return absl::OkStatus();
    }
    if (coordinator == nullptr) SP_RETURN_IF_ERROR(start());
    const std::string difference = Replay(record, *coordinator);
    if (difference.empty()) return absl::OkStatus();
    return absl::FailedPreconditionError(absl::StrCat(
        "record ", record.sequence,
        " of decisions.db does not follow from those before it: ", difference,
        ". Another version of the program wrote it, or it was changed: go on with that "
        "version, or start a new run in another folder"));
  }));
  if (coordinator == nullptr) SP_RETURN_IF_ERROR(start());
  return coordinator;
}

}  // namespace smartpipe
