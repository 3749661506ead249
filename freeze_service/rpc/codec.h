// Between wire messages and the core's plain values: decode and validate, encode.
#pragma once

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "freeze_service/core/coordinator.h"
#include "freeze_service/core/events.h"
#include "smartpipe/v1/freeze_service.pb.h"

namespace smartpipe {

/// What each decoder checks: form, limits, finite numbers. What needs the run's state is checked by
/// the Coordinator. Errors: INVALID_ARGUMENT (RESOURCE_EXHAUSTED for a limit) with a sentence that
/// names field, value and range.
absl::StatusOr<WorkerId> DecodeWorkerId(const std::string& id);
absl::Status CheckJoin(const v1::JoinRequest& request);
absl::StatusOr<WorkerJoined> DecodeJoined(const v1::AnnounceLayersRequest& request);
absl::StatusOr<IntervalReported> DecodeReport(const v1::ReportIntervalRequest& request);
absl::StatusOr<FaultReported> DecodeFault(const v1::ReportFaultRequest& request);
absl::Status CheckEndWorker(const v1::EndWorkerRequest& request);
/// Requires CheckEndWorker, and no error in the request.
WorkerFinished DecodeFinished(const v1::EndWorkerRequest& request);
/// `text` is at most kReasonBytesMax bytes.
absl::Status CheckText(absl::string_view field, absl::string_view text);
/// `value` is a finite number >= 0.
absl::Status CheckNotNegative(absl::string_view field, double value);

v1::EndWorkerRequest EncodeEndWorker(const WorkerFinished& finished);
v1::Verdict EncodeVerdict(const Verdict& verdict);
v1::Order EncodeOrder(const OrderRecord& record);
v1::Layer EncodeLayer(const LayerInfo& layer);
v1::RunState EncodeState(RunState state);

}  // namespace smartpipe
