#include "freeze_service/rpc/report_stream.h"

#include <utility>

#include "absl/status/statusor.h"
#include "freeze_service/rpc/codec.h"
#include "services/obs/trace_file.h"
#include "services/rpc/status.h"

namespace smartpipe {

ReportStream::ReportStream(ReportQueue* queue) : queue_(*queue) { StartRead(&request_); }

void ReportStream::OnReadDone(bool ok) {
  if (!ok) {  // the worker has said all, or is gone
    Finish(grpc::Status::OK);
    return;
  }
  response_.set_service_received_ns(MonotonicNs());
  absl::StatusOr<IntervalReported> report = DecodeReport(request_);
  if (!report.ok()) {
    DoAnswer(report.status());
    return;
  }
  queue_.Push({*std::move(report), [this](const absl::Status& status) { DoAnswer(status); }});
}

void ReportStream::DoAnswer(const absl::Status& status) {
  if (!status.ok()) {
    Finish(ToGrpcStatus(status));
    return;
  }
  response_.set_service_replied_ns(MonotonicNs());
  StartWrite(&response_);
}

void ReportStream::OnWriteDone(bool ok) {
  if (ok) {
    StartRead(&request_);
  } else {
    Finish(grpc::Status::CANCELLED);
  }
}

}  // namespace smartpipe
