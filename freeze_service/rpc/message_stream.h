// A server stream that is written from a queue, so that whoever has something to say never waits.
#pragma once

#include <deque>
#include <memory>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "grpcpp/grpcpp.h"
#include "grpcpp/impl/codegen/proto_utils.h"

namespace smartpipe {

/// A message as it goes over the wire: one that many streams write is encoded once.
template <typename Message>
grpc::ByteBuffer EncodeMessage(const Message& message) {
  grpc::ByteBuffer bytes;
  bool own = false;
  grpc::SerializationTraits<Message>::Serialize(message, &bytes, &own).IgnoreError();
  return bytes;
}

/// Errors: INVALID_ARGUMENT.
template <typename Message>
grpc::Status DecodeMessage(grpc::ByteBuffer bytes, Message* message) {
  return grpc::SerializationTraits<Message>::Deserialize(&bytes, message).ok()
             ? grpc::Status::OK
             : grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, "the request cannot be decoded");
}

/// Writes what it is given in order. A reader that lets `queued_max` messages wait is dropped: it
/// loses them, and when it reads again it is told RESOURCE_EXHAUSTED. Lives until gRPC is done with
/// it and nobody holds a pointer.  Threads: any.
template <typename Message>
class MessageStream : public grpc::ServerWriteReactor<grpc::ByteBuffer> {
 public:
  /// False: the stream is closed, broken, or dropped with this message.
  bool Send(const Message& message) { return Send(EncodeMessage(message)); }
  /// The same for a message of that kind that is encoded.
  bool Send(grpc::ByteBuffer message) ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    if (closing_ || broken_) return false;
    if (queue_.size() >= queued_max_) {
      closing_ = true;
      status_ = grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, too_slow_);
      queue_.resize(1);  // it is being written
    } else {
      queue_.push_back(std::move(message));
    }
    Advance();
    return !closing_;
  }

  /// Ends the stream with `status` after everything sent before is written. Idempotent.
  void Close(const grpc::Status& status) ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    if (closing_) return;
    closing_ = true;
    status_ = status;
    Advance();
  }

  void OnWriteDone(bool ok) final ABSL_LOCKS_EXCLUDED(mutex_) {
    if (!ok) Break();
    absl::MutexLock lock(&mutex_);
    writing_ = false;
    queue_.pop_front();
    Advance();
  }

  void OnCancel() final ABSL_LOCKS_EXCLUDED(mutex_) {
    Break();
    absl::MutexLock lock(&mutex_);
    Advance();
  }

 protected:
  /// A new stream that lives as said above.
  template <typename Stream>
  static std::shared_ptr<Stream> Own(Stream* stream) {
    std::shared_ptr<Stream> owned(stream);
    owned->self_ = owned;
    return owned;
  }
  /// `too_slow`: what a reader is told that is dropped.
  MessageStream(size_t queued_max, std::string too_slow)
      : queued_max_(queued_max), too_slow_(std::move(too_slow)) {}
  /// The other side has gone, or the stream is done: at least once, without a lock held.
  virtual void OnBroken() = 0;

 private:
  void OnDone() final {
    OnBroken();
    // May be the last owner: nothing may touch *this after it.
    std::shared_ptr<MessageStream> last = std::move(self_);
  }

  /// Starts the next write, or the finish.
  void Advance() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (writing_ || finished_) return;
    if (!queue_.empty() && !broken_) {
      writing_ = true;
      this->StartWrite(&queue_.front());
    } else if (closing_ || broken_) {
      finished_ = true;
      this->Finish(status_);
    }
  }

  void Break() ABSL_LOCKS_EXCLUDED(mutex_) {
    OnBroken();
    absl::MutexLock lock(&mutex_);
    broken_ = true;
    if (!closing_) status_ = grpc::Status::CANCELLED;
  }

  std::shared_ptr<MessageStream> self_;  // until OnDone
  const size_t queued_max_;
  const std::string too_slow_;
  absl::Mutex mutex_;
  std::deque<grpc::ByteBuffer> queue_
      ABSL_GUARDED_BY(mutex_);  // the first one is written if writing_
  grpc::Status status_ ABSL_GUARDED_BY(mutex_);
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool closing_ ABSL_GUARDED_BY(mutex_) = false;
  bool broken_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace smartpipe
