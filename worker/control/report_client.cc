#include "worker/control/report_client.h"

#include "services/rpc/status.h"

namespace smartpipe {

ReportClient::~ReportClient() {
  Cancel();
  if (stream_ != nullptr) Close().IgnoreError();
}

absl::Status ReportClient::Send(const v1::ReportIntervalRequest& report,
                                v1::ReportIntervalResponse* answer, absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  bool ok = true;
  if (stream_ == nullptr) {
    absl::MutexLock lock(&mutex_);
    if (cancelled_) return absl::CancelledError("nothing is reported any more");
    context_ = std::make_unique<grpc::ClientContext>();
    queue_.emplace();
    stream_ = stub_.PrepareAsyncReportInterval(context_.get(), &*queue_);
    stream_->StartCall(nullptr);
    under_way_ = true;
  }
  if (under_way_) ok = Await(deadline);
  if (ok) {
    stream_->Write(report, nullptr);
    ok = Await(deadline);
  }
  if (ok) {
    stream_->Read(answer, nullptr);
    ok = Await(deadline);
  }
  if (ok) return absl::OkStatus();
  const bool late = under_way_;
  const absl::Status why = Close();
  absl::MutexLock lock(&mutex_);
  if (cancelled_) return absl::CancelledError("nothing is reported any more");
  if (late) return absl::DeadlineExceededError("the freeze service does not answer a report");
  // A service that ends closes its streams.
  return why.ok() || absl::IsCancelled(why)
             ? absl::UnavailableError("the freeze service closed the stream of reports")
             : why;
}

void ReportClient::Cancel() {
  absl::MutexLock lock(&mutex_);
  cancelled_ = true;
  if (context_ != nullptr) context_->TryCancel();
}

bool ReportClient::Await(absl::Time deadline) {
  under_way_ = true;
  void* tag = nullptr;
  bool ok = false;
  const auto next = queue_->AsyncNext(&tag, &ok, absl::ToChronoTime(deadline));
  under_way_ = next == grpc::CompletionQueue::TIMEOUT;
  return next == grpc::CompletionQueue::GOT_EVENT && ok;
}

absl::Status ReportClient::Close() {
  if (under_way_) {
    {
      absl::MutexLock lock(&mutex_);
      context_->TryCancel();
    }
    Await(absl::InfiniteFuture());
  }
  grpc::Status status;
  stream_->Finish(&status, nullptr);
  Await(absl::InfiniteFuture());
  queue_->Shutdown();
  Await(absl::InfiniteFuture());
  absl::MutexLock lock(&mutex_);
  stream_.reset();
  queue_.reset();
  context_.reset();
  return FromGrpcStatus(status);
}

}  // namespace smartpipe
