// From the worker's plain messages to wire messages and back.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "services/config/run_config.h"
#include "smartpipe/v1/freeze_service.pb.h"
#include "worker/control/messages.h"

namespace smartpipe {

/// Errors of the decoders: INVALID_ARGUMENT naming the field.  Threads: pure.
absl::StatusOr<WorkerAssignment> DecodeAssignment(const v1::Assignment& proto);
absl::StatusOr<WorkerVerdict> DecodeWorkerVerdict(const v1::Verdict& proto);

v1::AnnounceLayersRequest EncodeLayers(const std::vector<LayerDescription>& layers,
                                       const RunShape& shape);
v1::ReportIntervalRequest EncodeReport(const IntervalReportInfo& report);
v1::StepProgress EncodeStep(const StepProgressInfo& progress);
v1::Evaluation EncodeEvaluation(const EvaluationInfo& evaluation);
v1::EndWorkerRequest EncodeResult(const WorkerResult& result);
/// The message of a failure for EndWorker: never empty, within kReasonBytesMax, valid UTF-8.
std::string EncodeFailure(const absl::Status& why);

/// UNAVAILABLE "the freeze service at ADDRESS is gone: <how>".
absl::Status ServiceGone(absl::string_view address, absl::string_view how);

}  // namespace smartpipe
