// The JSON line of one decision. Keys keep their order, so that lines can be compared and read by
// eye.
#include <string>
#include <variant>
#include <vector>

#include "absl/time/time.h"
#include "freeze_service/store/decision_store.h"
#include "nlohmann/json.hpp"

namespace smartpipe {
namespace {

using Json = nlohmann::ordered_json;

Json CutsJson(const std::vector<LayerIndex>& cuts) {
  Json json = Json::array();
  for (const LayerIndex cut : cuts) json.push_back(cut.value());
  return json;
}

Json WorkersJson(const std::vector<WorkerId>& workers) {
  Json json = Json::array();
  for (const WorkerId& worker : workers) json.push_back(worker.value());
  return json;
}

void AddFields(const StartGeneration& start, Json* json) {
  (*json)["type"] = "start_generation";
  (*json)["generation"] = start.generation.value();
  (*json)["step"] = start.step.value();
  (*json)["members"] = WorkersJson(start.members);
  (*json)["plan_epoch"] = start.plan.plan_epoch.value();
  (*json)["frontier"] = start.plan.frontier.value();
  (*json)["cuts"] = CutsJson(start.plan.cuts);
  (*json)["schedule"] = start.plan.schedule;
}

void AddFields(const Verdict& verdict, Json* json) {
  Json moves = Json::array();
  for (const LayerMove& move : verdict.moves) {
    moves.push_back({{"layer", move.layer.value()},
                     {"from_stage", move.from_stage.value()},
                     {"to_stage", move.to_stage.value()}});
  }
  (*json)["type"] = "verdict";
  (*json)["boundary"] = verdict.boundary.value();
  (*json)["step"] = verdict.step.value();
  (*json)["verdict"] = verdict.plan.has_value() ? "plan" : "keep";
  if (verdict.stop) (*json)["stop"] = true;
  if (verdict.checkpoint) (*json)["checkpoint"] = true;
  (*json)["plan_epoch"] = verdict.plan_epoch.value();
  (*json)["frontier"] = verdict.frontier.value();
  (*json)["cuts"] = CutsJson(verdict.cuts);
  (*json)["moves"] = std::move(moves);
  (*json)["moved_bytes"] = verdict.moved_bytes;
  (*json)["predicted_old_step_s"] = verdict.predicted_old_step_s;
  (*json)["predicted_step_s"] = verdict.predicted_step_s;
  (*json)["even_step_s"] = verdict.even_step_s;
  (*json)["eta"] = verdict.eta;  // NaN is written as null
  (*json)["reason"] = verdict.reason;
}

void AddFields(const EndGeneration& end, Json* json) {
  (*json)["type"] = "end_generation";
  (*json)["generation"] = end.generation.value();
  (*json)["reason"] = end.reason;
}

void AddFields(const OrderAccepted& accepted, Json* json) {
  (*json)["type"] = "order_accepted";
  (*json)["request_id"] = accepted.request_id;
  (*json)["boundary"] = accepted.boundary.value();
  (*json)["step"] = accepted.step.value();
}

void AddFields(const WorkerDrained& drained, Json* json) {
  (*json)["type"] = "worker_drained";
  (*json)["worker"] = drained.worker.value();
  (*json)["reason"] = drained.reason;
}

void AddFields(const EndRun& end, Json* json) {
  (*json)["type"] = "end_run";
  (*json)["success"] = end.success;
  (*json)["reason"] = end.reason;
}

}  // namespace

std::string DecisionJson(int64_t sequence, absl::Time now, const Decision& decision) {
  Json json;
  json["sequence"] = sequence;
  json["time"] = absl::FormatTime("%Y-%m-%dT%H:%M:%E6SZ", now, absl::UTCTimeZone());
  std::visit([&json](const auto& value) { AddFields(value, &json); }, decision);
  // A worker's last words may hold bytes that are not UTF-8: they become replacement characters.
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace smartpipe
