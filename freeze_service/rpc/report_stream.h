// One open ReportInterval stream: the reports of one worker, each answered before the next is read.
#pragma once

#include <functional>

#include "absl/status/status.h"
#include "freeze_service/core/events.h"
#include "grpcpp/grpcpp.h"
#include "smartpipe/v1/freeze_service.pb.h"

namespace smartpipe {

/// Lives until gRPC is done with it.  Threads: any.
class ReportStream final
    : public grpc::ServerBidiReactor<v1::ReportIntervalRequest, v1::ReportIntervalResponse> {
 public:
  using Answer = std::function<void(const absl::Status&)>;
  /// Hands a report on and calls `answer` once, from any thread.
  using Take = std::function<void(IntervalReported report, Answer answer)>;

  explicit ReportStream(Take take);

 private:
  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnDone() override { delete this; }
  void DoAnswer(const absl::Status& status);

  const Take take_;
  // One report at a time: only its reading, its taking and its answer, one after the other, touch
  // these.
  v1::ReportIntervalRequest request_;
  v1::ReportIntervalResponse response_;
};

}  // namespace smartpipe
