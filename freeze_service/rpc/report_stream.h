// One open ReportInterval stream: the reports of one worker, each answered before the next is read.
#pragma once

#include "absl/status/status.h"
#include "freeze_service/rpc/report_queue.h"
#include "grpcpp/grpcpp.h"
#include "smartpipe/v1/freeze_service.pb.h"

namespace smartpipe {

/// Lives until gRPC is done with it.  Threads: any.
class ReportStream final
    : public grpc::ServerBidiReactor<v1::ReportIntervalRequest, v1::ReportIntervalResponse> {
 public:
  /// Hands reports on to `queue`, which must outlive it.
  explicit ReportStream(ReportQueue* queue);

 private:
  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnDone() override { delete this; }
  void DoAnswer(const absl::Status& status);

  ReportQueue& queue_;
  // One report at a time: only its reading, its taking and its answer, one after the other, touch
  // these.
  v1::ReportIntervalRequest request_;
  v1::ReportIntervalResponse response_;
};

}  // namespace smartpipe
