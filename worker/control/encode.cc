#include "worker/control/encode.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "services/base/limits.h"
#include "services/base/status_macros.h"
#include "services/rpc/plan_proto.h"

namespace smartpipe {

absl::StatusOr<WorkerAssignment> DecodeAssignment(const v1::Assignment& proto) {
  if (proto.rank() < 0 || proto.rank() >= proto.members_size() ||
      proto.members_size() > limits::kWorkersMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("assignment: rank ", proto.rank(), " of ", proto.members_size(), " members"));
  }
  WorkerAssignment assignment;
  assignment.generation = Generation(proto.generation());
  assignment.rank = Rank(proto.rank());
  for (const std::string& member : proto.members()) assignment.members.push_back(WorkerId(member));
  SP_ASSIGN_OR_RETURN(assignment.plan, FromProto(proto.plan()));
  if (proto.first_step() < 0 || proto.first_boundary() < 0) {
    return absl::InvalidArgumentError(absl::StrCat("assignment: first step ", proto.first_step(),
                                                   ", first boundary ", proto.first_boundary()));
  }
  assignment.first_step = Step(proto.first_step());
  assignment.first_boundary = IntervalIndex(proto.first_boundary());
  return assignment;
}

absl::StatusOr<WorkerVerdict> DecodeWorkerVerdict(const v1::Verdict& proto) {
  WorkerVerdict verdict;
  verdict.boundary = IntervalIndex(proto.boundary());
  verdict.step = Step(proto.step());
  verdict.reason = proto.reason();
  verdict.stop = proto.stop();
  verdict.checkpoint = proto.checkpoint();
  if (proto.has_plan()) {
    SP_ASSIGN_OR_RETURN(verdict.plan, FromProto(proto.plan()));
  }
  return verdict;
}

v1::AnnounceLayersRequest EncodeLayers(const std::vector<LayerDescription>& layers,
                                       const RunShape& shape) {
  v1::AnnounceLayersRequest request;
  for (const LayerDescription& layer : layers) {
    v1::Layer* added = request.add_layers();
    added->set_name(layer.name);
    *added->mutable_cost() = ToProto(layer.cost);
  }
  request.set_num_steps(shape.num_steps);
  request.set_steps_per_epoch(shape.steps_per_epoch);
  request.set_interval_steps(shape.interval_steps);
  return request;
}

v1::ReportIntervalRequest EncodeReport(const IntervalReportInfo& report) {
  v1::ReportIntervalRequest request;
  request.set_generation(report.generation.value());
  request.set_plan_epoch(report.plan_epoch.value());
  request.set_interval(report.interval.value());
  for (const LayerReportInfo& layer : report.layers) {
    v1::LayerReport* added = request.add_layers();
    added->set_layer(layer.layer.value());
    added->set_frozen(layer.frozen);
    added->set_has_previous(layer.has_previous);
    added->set_grad_norm_l2(layer.grad_norm_l2);
    added->set_previous_grad_norm_l2(layer.previous_grad_norm_l2);
    added->set_grad_difference_norm_l2(layer.grad_difference_norm_l2);
    added->set_microbatch_grad_norm2_mean(layer.microbatch_grad_norm2_mean);
    added->set_previous_microbatch_grad_norm2_mean(layer.previous_microbatch_grad_norm2_mean);
    added->set_num_microbatches(layer.num_microbatches);
    added->set_num_nonfinite_steps(layer.num_nonfinite_steps);
    *added->mutable_cost() = ToProto(layer.cost);
  }
  request.set_step_s(report.step_s);
  request.set_verdict_wait_s(report.verdict_wait_s);
  request.set_switch_drain_s(report.switch_drain_s);
  request.set_switch_move_s(report.switch_move_s);
  request.set_switch_moved_bytes(report.switch_moved_bytes);
  request.set_link_bytes_per_s(report.link_bytes_per_s);
  request.set_link_latency_s(report.link_latency_s);
  return request;
}

v1::StepProgress EncodeStep(const StepProgressInfo& progress) {
  v1::StepProgress proto;
  proto.set_step(progress.step.value());
  proto.set_loss(progress.loss);
  proto.set_step_s(progress.step_s);
  return proto;
}

v1::Evaluation EncodeEvaluation(const EvaluationInfo& evaluation) {
  v1::Evaluation proto;
  proto.set_step(evaluation.step.value());
  proto.set_accuracy(evaluation.accuracy);
  proto.set_loss(evaluation.loss);
  proto.set_seconds(evaluation.seconds);
  return proto;
}

v1::EndWorkerRequest EncodeResult(const WorkerResult& result) {
  v1::EndWorkerRequest request;
  request.set_train_s(result.train_s);
  request.set_verdict_wait_s(result.verdict_wait_s);
  request.set_switch_s(result.switch_s);
  request.set_report_s(result.report_s);
  request.set_checkpoint_s(result.checkpoint_s);
  request.set_checkpoint_bytes_written(result.checkpoint_bytes_written);
  request.set_checkpoint_bytes_shared(result.checkpoint_bytes_shared);
  request.set_weights_sha256(result.weights_sha256);
  return request;
}

std::string EncodeFailure(const absl::Status& why) {
  std::string text;
  for (char c : why.message()) text += static_cast<unsigned char>(c) < 0x80 ? c : '?';
  if (text.empty())
    text = why.ok() ? "it gave no reason" : std::string(absl::StatusCodeToString(why.code()));
  if (text.size() > static_cast<size_t>(limits::kReasonBytesMax)) {
    text.resize(limits::kReasonBytesMax - 3);
    text += "...";
  }
  return text;
}

absl::Status ServiceGone(absl::string_view address, absl::string_view how) {
  return absl::UnavailableError(absl::StrCat("the freeze service at ", address, " is gone: ", how));
}

}  // namespace smartpipe
