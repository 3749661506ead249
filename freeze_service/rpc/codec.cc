#include "freeze_service/rpc/codec.h"

#include <cmath>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/base/content_digest.h"
#include "services/base/limits.h"
#include "services/base/status_macros.h"
#include "services/rpc/plan_proto.h"

namespace smartpipe {
namespace {

absl::Status CheckFinite(absl::string_view field, double value) {
  if (std::isfinite(value)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(field, " is ", value, "; it must be a finite number"));
}

absl::Status CheckCost(absl::string_view where, const v1::LayerCost& cost) {
  const std::pair<absl::string_view, double> fields[] = {{"forward_s", cost.forward_s()},
                                                         {"input_grad_s", cost.input_grad_s()},
                                                         {"weight_grad_s", cost.weight_grad_s()},
                                                         {"optimize_s", cost.optimize_s()}};
  for (const auto& [name, value] : fields)
    SP_RETURN_IF_ERROR(CheckFinite(absl::StrCat(where, ".cost.", name), value));
  return absl::OkStatus();
}

absl::Status CheckNumLayers(int num_layers) {
  if (num_layers >= 1 && num_layers <= limits::kLayersMax) return absl::OkStatus();
  const std::string message = absl::StrCat("the request has ", num_layers,
                                           " layers; the range is 1 to ", limits::kLayersMax);
  return num_layers < 1 ? absl::InvalidArgumentError(message)
                        : absl::ResourceExhaustedError(message);
}

LayerStatistics DecodeStatistics(const v1::LayerReport& layer) {
  return {.layer = LayerIndex(layer.layer()),
          .frozen = layer.frozen(),
          .has_previous = layer.has_previous(),
          .grad_norm_l2 = layer.grad_norm_l2(),
          .previous_grad_norm_l2 = layer.previous_grad_norm_l2(),
          .grad_difference_norm_l2 = layer.grad_difference_norm_l2(),
          .microbatch_grad_norm2_mean = layer.microbatch_grad_norm2_mean(),
          .previous_microbatch_grad_norm2_mean = layer.previous_microbatch_grad_norm2_mean(),
          .num_microbatches = layer.num_microbatches(),
          .num_nonfinite_steps = layer.num_nonfinite_steps()};
}

}  // namespace

absl::Status CheckText(absl::string_view field, absl::string_view text) {
  if (text.size() <= static_cast<size_t>(limits::kReasonBytesMax)) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrCat(field, " has ", text.size(), " bytes; the limit is ", limits::kReasonBytesMax));
}

absl::Status CheckNotNegative(absl::string_view field, double value) {
  if (std::isfinite(value) && value >= 0) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(field, " is ", value, "; it must be a finite number >= 0"));
}

absl::StatusOr<WorkerId> DecodeWorkerId(const std::string& id) {
  if (IsWorkerId(id)) return WorkerId(id);
  return absl::InvalidArgumentError(
      absl::StrCat("worker_id \"", id.substr(0, limits::kNameBytesMax), "\" is not a name of 1 to ",
                   limits::kNameBytesMax, " characters of a-z, 0-9 and -"));
}

absl::Status CheckJoin(const v1::JoinRequest& request) {
  SP_RETURN_IF_ERROR(DecodeWorkerId(request.worker_id()).status());
  if (request.incarnation() <= 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("incarnation is ", request.incarnation(),
                     "; it must be the start time in microseconds since 1970"));
  }
  if (request.generation() < 0 || request.next_boundary() < 0) {
    return absl::InvalidArgumentError("generation and next_boundary must be at least 0");
  }
  return CheckText("address", request.address());
}

absl::StatusOr<WorkerJoined> DecodeJoined(const v1::AnnounceLayersRequest& request) {
  SP_ASSIGN_OR_RETURN(WorkerId worker, DecodeWorkerId(request.worker_id()));
  SP_RETURN_IF_ERROR(CheckNumLayers(request.layers_size()));
  const std::pair<absl::string_view, int64_t> lengths[] = {
      {"num_steps", request.num_steps()},
      {"steps_per_epoch", request.steps_per_epoch()},
      {"interval_steps", request.interval_steps()}};
  for (const auto& [name, value] : lengths) {
    if (value < 1 || value > limits::kStepsMax) {
      return absl::InvalidArgumentError(
          absl::StrCat(name, " is ", value, "; the range is 1 to ", limits::kStepsMax));
    }
  }
  WorkerJoined joined{.worker = std::move(worker),
                      .incarnation = request.incarnation(),
                      .length = {.num_steps = request.num_steps(),
                                 .steps_per_epoch = request.steps_per_epoch(),
                                 .interval_steps = request.interval_steps()},
                      .layers = {},
                      .checkpoints = {}};
  if (request.checkpoints_size() > limits::kCheckpointsAnnouncedMax) {
    return absl::ResourceExhaustedError(absl::StrCat("the request has ", request.checkpoints_size(),
                                                     " checkpoints; the limit is ",
                                                     limits::kCheckpointsAnnouncedMax));
  }
  for (const int64_t step : request.checkpoints()) {
    if (step < 0 || step > limits::kStepsMax ||
        (!joined.checkpoints.empty() && step <= joined.checkpoints.back().value())) {
      return absl::InvalidArgumentError(absl::StrCat(
          "checkpoints: step ", step, "; steps must ascend and be in 0 to ", limits::kStepsMax));
    }
    joined.checkpoints.push_back(Step(step));
  }
  for (const v1::Layer& layer : request.layers()) {
    const std::string where = absl::StrCat("layers[", joined.layers.size(), "]");
    if (layer.name().empty())
      return absl::InvalidArgumentError(absl::StrCat(where, ".name is empty"));
    SP_RETURN_IF_ERROR(CheckText(absl::StrCat(where, ".name"), layer.name()));
    SP_RETURN_IF_ERROR(CheckCost(where, layer.cost()));
    joined.layers.push_back({.name = layer.name(), .cost = FromProto(layer.cost())});
  }
  return joined;
}

absl::StatusOr<IntervalReported> DecodeReport(const v1::ReportIntervalRequest& request) {
  SP_ASSIGN_OR_RETURN(WorkerId worker, DecodeWorkerId(request.worker_id()));
  SP_RETURN_IF_ERROR(CheckNumLayers(request.layers_size()));
  if (request.interval() < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("interval is ", request.interval(), "; it must be >= 0"));
  }
  SP_RETURN_IF_ERROR(CheckNotNegative("step_s", request.step_s()));
  SP_RETURN_IF_ERROR(CheckNotNegative("verdict_wait_s", request.verdict_wait_s()));
  SP_RETURN_IF_ERROR(CheckNotNegative("switch_drain_s", request.switch_drain_s()));
  SP_RETURN_IF_ERROR(CheckNotNegative("switch_move_s", request.switch_move_s()));
  SP_RETURN_IF_ERROR(
      CheckNotNegative("switch_moved_bytes", static_cast<double>(request.switch_moved_bytes())));
  IntervalReported reported{.worker = std::move(worker),
                            .generation = Generation(request.generation()),
                            .plan_epoch = PlanEpoch(request.plan_epoch()),
                            .interval = IntervalIndex(request.interval()),
                            .statistics = {},
                            .costs = {},
                            .step_s = request.step_s(),
                            .verdict_wait_s = request.verdict_wait_s(),
                            .switch_drain_s = request.switch_drain_s(),
                            .switch_move_s = request.switch_move_s(),
                            .switch_moved_bytes = request.switch_moved_bytes(),
                            .link_bytes_per_s = request.link_bytes_per_s(),
                            .link_latency_s = request.link_latency_s()};
  for (const v1::LayerReport& layer : request.layers()) {
    const std::string where = absl::StrCat("layers[", reported.statistics.size(), "]");
    if (layer.num_microbatches() < 0 || layer.num_nonfinite_steps() < 0) {
      return absl::InvalidArgumentError(absl::StrCat(where, " has a negative count"));
    }
    SP_RETURN_IF_ERROR(CheckCost(where, layer.cost()));
    reported.statistics.push_back(DecodeStatistics(layer));
    reported.costs.push_back(FromProto(layer.cost()));
  }
  return reported;
}

absl::StatusOr<FaultReported> DecodeFault(const v1::ReportFaultRequest& request) {
  SP_ASSIGN_OR_RETURN(WorkerId worker, DecodeWorkerId(request.worker_id()));
  SP_RETURN_IF_ERROR(CheckText("message", request.message()));
  if (request.message().empty())
    return absl::InvalidArgumentError("message is empty; say what happened");
  return FaultReported{.worker = std::move(worker),
                       .generation = Generation(request.generation()),
                       .message = request.message()};
}

absl::Status CheckEndWorker(const v1::EndWorkerRequest& request) {
  SP_RETURN_IF_ERROR(DecodeWorkerId(request.worker_id()).status());
  SP_RETURN_IF_ERROR(CheckText("error", request.error()));
  SP_RETURN_IF_ERROR(CheckNotNegative("train_s", request.train_s()));
  SP_RETURN_IF_ERROR(CheckNotNegative("verdict_wait_s", request.verdict_wait_s()));
  SP_RETURN_IF_ERROR(CheckNotNegative("switch_s", request.switch_s()));
  SP_RETURN_IF_ERROR(CheckNotNegative("report_s", request.report_s()));
  SP_RETURN_IF_ERROR(CheckNotNegative("checkpoint_s", request.checkpoint_s()));
  if (request.checkpoint_bytes_written() < 0 || request.checkpoint_bytes_shared() < 0) {
    return absl::InvalidArgumentError("the bytes of checkpoints are negative");
  }
  const std::string& digest = request.weights_sha256();
  if (digest.empty() || ParseContentDigest(digest).ok()) return absl::OkStatus();
  return absl::InvalidArgumentError("weights_sha256 is neither empty nor 64 lowercase hex digits");
}

WorkerFinished DecodeFinished(const v1::EndWorkerRequest& request) {
  return {.worker = WorkerId(request.worker_id()),
          .generation = Generation(request.generation()),
          .result = {.train_s = request.train_s(),
                     .verdict_wait_s = request.verdict_wait_s(),
                     .switch_s = request.switch_s(),
                     .report_s = request.report_s(),
                     .checkpoint_s = request.checkpoint_s(),
                     .checkpoint_bytes_written = request.checkpoint_bytes_written(),
                     .checkpoint_bytes_shared = request.checkpoint_bytes_shared(),
                     .weights_sha256 = request.weights_sha256()}};
}

v1::EndWorkerRequest EncodeEndWorker(const WorkerFinished& finished) {
  v1::EndWorkerRequest request;
  request.set_worker_id(finished.worker.value());
  request.set_generation(finished.generation.value());
  request.set_train_s(finished.result.train_s);
  request.set_verdict_wait_s(finished.result.verdict_wait_s);
  request.set_switch_s(finished.result.switch_s);
  request.set_report_s(finished.result.report_s);
  request.set_checkpoint_s(finished.result.checkpoint_s);
  request.set_checkpoint_bytes_written(finished.result.checkpoint_bytes_written);
  request.set_checkpoint_bytes_shared(finished.result.checkpoint_bytes_shared);
  request.set_weights_sha256(finished.result.weights_sha256);
  return request;
}

v1::Verdict EncodeVerdict(const Verdict& verdict) {
  v1::Verdict proto;
  proto.set_boundary(verdict.boundary.value());
  proto.set_step(verdict.step.value());
  if (verdict.plan) *proto.mutable_plan() = ToProto(*verdict.plan);
  proto.set_reason(verdict.reason);
  proto.set_frontier(verdict.frontier.value());
  for (LayerIndex cut : verdict.cuts) proto.add_cuts(cut.value());
  proto.set_plan_epoch(verdict.plan_epoch.value());
  for (const LayerMove& move : verdict.moves) {
    v1::LayerMove* added = proto.add_moves();
    added->set_layer(move.layer.value());
    added->set_from_stage(move.from_stage.value());
    added->set_to_stage(move.to_stage.value());
  }
  proto.set_moved_bytes(verdict.moved_bytes);
  proto.set_predicted_old_step_s(verdict.predicted_old_step_s);
  proto.set_predicted_step_s(verdict.predicted_step_s);
  proto.set_even_step_s(verdict.even_step_s);
  for (double eta : verdict.eta) proto.add_eta(eta);
  proto.set_stop(verdict.stop);
  proto.set_checkpoint(verdict.checkpoint);
  return proto;
}

v1::Layer EncodeLayer(const LayerInfo& layer) {
  v1::Layer proto;
  proto.set_name(layer.name);
  *proto.mutable_cost() = ToProto(layer.cost);
  return proto;
}

v1::RunState EncodeState(RunState state) {
  switch (state) {
    case RunState::kWaiting:
      return v1::RUN_STATE_WAITING;
    case RunState::kRunning:
      return v1::RUN_STATE_RUNNING;
    case RunState::kFinished:
      return v1::RUN_STATE_FINISHED;
    case RunState::kFailed:
      return v1::RUN_STATE_FAILED;
  }
  return v1::RUN_STATE_UNSPECIFIED;
}

}  // namespace smartpipe
