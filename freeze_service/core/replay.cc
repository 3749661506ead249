#include "freeze_service/core/replay.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "freeze_service/core/decision_text.h"

namespace smartpipe {
namespace {

// ---- Values as text that is equal exactly when the values are
// ------------------------------------

std::string Text(bool value) { return value ? "true" : "false"; }
std::string Text(int32_t value) { return absl::StrCat(value); }
std::string Text(int64_t value) { return absl::StrCat(value); }
std::string Text(double value) {
  return value == 0 ? (std::signbit(value) ? "-0" : "0") : Exact(value);
}
std::string Text(const std::string& value) { return absl::StrCat("\"", value, "\""); }
std::string Text(const WorkerId& id) { return id.value(); }
template <typename Tag, typename Rep>
std::string Text(StrongInt<Tag, Rep> value) {
  return absl::StrCat(value.value());
}
std::string Text(const LayerMove& move) {
  return absl::StrCat("layer ", move.layer.value(), " from stage ", move.from_stage.value(), " to ",
                      move.to_stage.value());
}
template <typename T>
std::string Text(const std::vector<T>& values) {
  return absl::StrCat(
      "[",
      absl::StrJoin(values, ", ", [](std::string* out, const T& value) { *out += Text(value); }),
      "]");
}

/// Name and text of each field. The structured bindings fail to compile when a field is added.
using Fields = std::vector<std::pair<std::string, std::string>>;

void AddPlan(const std::optional<Plan>& plan, Fields* fields) {
  fields->emplace_back("plan", plan.has_value() ? "a plan" : "none");
  if (!plan.has_value()) return;
  const auto& [plan_epoch, effective_step, frontier, cuts, placement, schedule, credits] = *plan;
  fields->emplace_back("plan.plan_epoch", Text(plan_epoch));
  fields->emplace_back("plan.effective_step", Text(effective_step));
  fields->emplace_back("plan.frontier", Text(frontier));
  fields->emplace_back("plan.cuts", Text(cuts));
  fields->emplace_back("plan.placement", Text(placement));
  fields->emplace_back("plan.schedule", Text(schedule));
  fields->emplace_back("plan.credits", Text(credits));
}

Fields FieldsOf(const StartGeneration& start) {
  const auto& [generation, members, plan, step] = start;
  Fields fields = {
      {"generation", Text(generation)}, {"members", Text(members)}, {"step", Text(step)}};
  AddPlan(plan, &fields);
  return fields;
}

Fields FieldsOf(const Verdict& verdict) {
  const auto& [boundary, step, plan, reason, frontier_reason, stop, checkpoint, frontier, cuts,
               plan_epoch, moves, moved_bytes, predicted_old_step_s, predicted_step_s, even_step_s,
               eta] = verdict;
  Fields fields = {
      {"boundary", Text(boundary)},     {"step", Text(step)},         {"stop", Text(stop)},
      {"checkpoint", Text(checkpoint)}, {"frontier", Text(frontier)}, {"cuts", Text(cuts)},
      {"plan_epoch", Text(plan_epoch)}};
  AddPlan(plan, &fields);
  fields.insert(fields.end(), {{"moves", Text(moves)},
                               {"moved_bytes", Text(moved_bytes)},
                               {"predicted_old_step_s", Text(predicted_old_step_s)},
                               {"predicted_step_s", Text(predicted_step_s)},
                               {"even_step_s", Text(even_step_s)},
                               {"eta", Text(eta)},
                               {"reason", Text(reason)},
                               {"frontier_reason", Text(frontier_reason)}});
  return fields;
}

Fields FieldsOf(const EndRun& end) {
  const auto& [success, reason] = end;
  return {{"success", Text(success)}, {"reason", Text(reason)}};
}

Fields FieldsOf(const EndGeneration& end) {
  const auto& [generation, reason] = end;
  return {{"generation", Text(generation)}, {"reason", Text(reason)}};
}

Fields FieldsOf(const OrderAccepted& accepted) {
  const auto& [request_id, boundary, step] = accepted;
  return {{"request_id", Text(request_id)}, {"boundary", Text(boundary)}, {"step", Text(step)}};
}

Fields FieldsOf(const WorkerDrained& drained) {
  const auto& [worker, reason] = drained;
  return {{"worker", Text(worker)}, {"reason", Text(reason)}};
}

absl::string_view KindOf(const Decision& decision) {
  static constexpr absl::string_view kKinds[] = {"start of a generation", "verdict",
                                                 "end of the run",        "end of a generation",
                                                 "accepted order",        "drained worker"};
  static_assert(std::variant_size_v<Decision> == std::size(kKinds));
  return kKinds[decision.index()];
}

// First field in which two decisions differ; empty when they are equal.
std::string DifferenceOf(const Decision& recorded, const Decision& replayed) {
  if (recorded.index() != replayed.index()) {
    return absl::StrCat("kind: recorded ", KindOf(recorded), ", replayed ", KindOf(replayed));
  }
  const auto fields_of = [](const auto& value) { return FieldsOf(value); };
  const Fields a = std::visit(fields_of, recorded);
  const Fields b = std::visit(fields_of, replayed);
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    if (a[i] != b[i]) {
      return absl::StrCat(a[i].first, ": recorded ", a[i].second, ", replayed ", b[i].second);
    }
  }
  return "";
}

}  // namespace

std::string Replay(const EventRecord& record, Coordinator& coordinator) {
  const absl::StatusOr<std::vector<Decision>> replayed =
      coordinator.Apply(record.event, record.now);
  if (!replayed.ok()) {
    return absl::StrCat("the event is refused: ", replayed.status().message());
  }
  const std::vector<Decision>& recorded = record.decisions;
  for (size_t i = 0; i < std::min(recorded.size(), replayed->size()); ++i) {
    const std::string difference = DifferenceOf(recorded[i], (*replayed)[i]);
    if (!difference.empty()) {
      return absl::StrCat("decision ", i, " (", KindOf(recorded[i]), "), ", difference);
    }
  }
  if (recorded.size() == replayed->size()) return "";
  return absl::StrCat("number of decisions: recorded ", recorded.size(), ", replayed ",
                      replayed->size());
}

}  // namespace smartpipe
