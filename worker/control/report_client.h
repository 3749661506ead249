// The worker's side of the ReportInterval stream.
#pragma once

#include <memory>
#include <optional>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "grpcpp/grpcpp.h"
#include "smartpipe/v1/freeze_service.grpc.pb.h"

namespace smartpipe {

/// Sends one report at a time, over a stream that it opens when there is one to send, and again
/// after each error.  Threads: Send from one; Cancel from any.
class ReportClient {
 public:
  /// `stub` must outlive it.
  explicit ReportClient(v1::FreezeService::Stub* stub) : stub_(*stub) {}
  /// Closes the stream.
  ~ReportClient();
  ReportClient(const ReportClient&) = delete;
  ReportClient& operator=(const ReportClient&) = delete;

  /// Waits for the answer.  Errors: the service's refusal; UNAVAILABLE: no service, or it closed
  /// the stream; DEADLINE_EXCEEDED; CANCELLED after Cancel.
  absl::Status Send(const v1::ReportIntervalRequest& report, v1::ReportIntervalResponse* answer,
                    absl::Duration timeout) ABSL_LOCKS_EXCLUDED(mutex_);
  /// Ends the report under way, and all later ones.
  void Cancel() ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  /// Why the stream is over; there is none from then on.
  absl::Status Close() ABSL_LOCKS_EXCLUDED(mutex_);
  /// Whether the one operation under way is done well in time; if it is not done, it still is under
  /// way.
  bool Await(absl::Time deadline);

  v1::FreezeService::Stub& stub_;
  absl::Mutex mutex_;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  std::unique_ptr<grpc::ClientContext> context_ ABSL_PT_GUARDED_BY(mutex_);
  std::optional<grpc::CompletionQueue> queue_;
  std::unique_ptr<
      grpc::ClientAsyncReaderWriter<v1::ReportIntervalRequest, v1::ReportIntervalResponse>>
      stream_;
  bool under_way_ = false;  // an operation
};

}  // namespace smartpipe
