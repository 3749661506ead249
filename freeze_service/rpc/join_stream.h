// One open Join stream: an ordered queue of messages to one worker.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "grpcpp/grpcpp.h"
#include "services/base/ids.h"
#include "smartpipe/v1/freeze_service.pb.h"

namespace smartpipe {

/// Writes what it is given in order, without ever blocking the caller, and tells at once when the
/// other side has gone. Lives until gRPC is done with it and nobody holds a pointer.  Threads: any.
class JoinStream final : public grpc::ServerWriteReactor<v1::JoinResponse> {
 public:
  using BrokenCallback = std::function<void(JoinStream&)>;

  /// The stream of a worker; `on_broken` is called when the connection broke and when the stream
  /// is done, so at least once, without a lock held.
  static std::shared_ptr<JoinStream> Create(WorkerId worker, int64_t incarnation,
                                            BrokenCallback on_broken);

  const WorkerId& worker() const { return worker_; }
  int64_t incarnation() const { return incarnation_; }

  void Send(v1::JoinResponse message) ABSL_LOCKS_EXCLUDED(mutex_);
  /// Ends the stream with `status` after everything sent before is written. Idempotent.
  void Close(const grpc::Status& status) ABSL_LOCKS_EXCLUDED(mutex_);

  void OnWriteDone(bool ok) override ABSL_LOCKS_EXCLUDED(mutex_);
  void OnCancel() override;
  void OnDone() override;

 private:
  JoinStream(WorkerId worker, int64_t incarnation, BrokenCallback on_broken)
      : worker_(std::move(worker)), incarnation_(incarnation), on_broken_(std::move(on_broken)) {}
  /// Starts the next write, or the finish.
  void Advance() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Break() ABSL_LOCKS_EXCLUDED(mutex_);

  const WorkerId worker_;
  const int64_t incarnation_;
  const BrokenCallback on_broken_;
  std::shared_ptr<JoinStream> self_;  // until OnDone

  absl::Mutex mutex_;
  std::deque<v1::JoinResponse> queue_
      ABSL_GUARDED_BY(mutex_);  // the first one is being written if writing_
  grpc::Status status_ ABSL_GUARDED_BY(mutex_);
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool closing_ ABSL_GUARDED_BY(mutex_) = false;
  bool broken_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace smartpipe
