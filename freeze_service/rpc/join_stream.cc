#include "freeze_service/rpc/join_stream.h"

#include <utility>

namespace smartpipe {
namespace {

// A worker that reads nothing gets at most this many messages kept; the protocol never comes near
// it.
constexpr size_t kQueuedMax = 4096;

}  // namespace

std::shared_ptr<JoinStream> JoinStream::Create(WorkerId worker, int64_t incarnation,
                                               BrokenCallback on_broken) {
  std::shared_ptr<JoinStream> stream(
      new JoinStream(std::move(worker), incarnation, std::move(on_broken)));
  stream->self_ = stream;
  return stream;
}

void JoinStream::Send(v1::JoinResponse message) {
  absl::MutexLock lock(&mutex_);
  if (closing_ || broken_) return;
  if (queue_.size() >= kQueuedMax) {
    closing_ = true;
    status_ =
        grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "the worker does not read its stream");
    queue_.resize(1);
  } else {
    queue_.push_back(std::move(message));
  }
  Advance();
}

void JoinStream::Close(const grpc::Status& status) {
  absl::MutexLock lock(&mutex_);
  if (closing_) return;
  closing_ = true;
  status_ = status;
  Advance();
}

void JoinStream::Advance() {
  if (writing_ || finished_) return;
  if (!queue_.empty() && !broken_) {
    writing_ = true;
    StartWrite(&queue_.front());
  } else if (closing_ || broken_) {
    finished_ = true;
    Finish(status_);
  }
}

void JoinStream::OnWriteDone(bool ok) {
  if (!ok) Break();
  absl::MutexLock lock(&mutex_);
  writing_ = false;
  queue_.pop_front();
  Advance();
}

void JoinStream::OnCancel() {
  Break();
  absl::MutexLock lock(&mutex_);
  Advance();
}

void JoinStream::Break() {
  on_broken_(*this);
  absl::MutexLock lock(&mutex_);
  broken_ = true;
  if (!closing_) status_ = grpc::Status::CANCELLED;
}

void JoinStream::OnDone() {
  on_broken_(*this);
  // May be the last owner: nothing may touch *this after it.
  std::shared_ptr<JoinStream> last = std::move(self_);
}

}  // namespace smartpipe
