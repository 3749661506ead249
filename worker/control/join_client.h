// The worker's end of its Join stream, opened again when the connection breaks.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "grpcpp/grpcpp.h"
#include "smartpipe/v1/freeze_service.grpc.pb.h"

namespace smartpipe {

/// Reads the stream on a thread of its own. A stream that breaks, because the service was killed or
/// the network is down, is opened again with growing waits; a refusal ends it.  Threads: Stop from
/// any, also from the callbacks.
class JoinClient {
 public:
  /// All are called on the reading thread.
  struct Callbacks {
    std::function<v1::JoinRequest()> request;  // of the next stream
    /// An error ends the client.
    std::function<absl::Status(const v1::JoinResponse&)> on_message;
    /// The stream broke and will be opened again.
    std::function<void(const std::string& how)> on_break;
    /// Once: no more messages will come. UNAVAILABLE when nobody answered for `patience`, the
    /// refusal's own code, or CANCELLED after Stop.
    std::function<void(const absl::Status& why)> on_end;
    std::function<absl::Duration()> patience;
  };
  JoinClient(std::shared_ptr<grpc::Channel> channel, Callbacks callbacks);
  /// Once, before anything else.
  void Start();
  /// Stops.
  ~JoinClient();

  /// Ends the stream for good; does not wait.
  void Stop() ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  void Work();
  /// One stream, until it ends. `heard` is set when a message came.
  absl::Status ReadStream(bool* heard) ABSL_LOCKS_EXCLUDED(mutex_);

  const std::unique_ptr<v1::FreezeService::Stub> stub_;
  const Callbacks callbacks_;
  absl::Mutex mutex_;
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
  grpc::ClientContext* context_ ABSL_GUARDED_BY(mutex_) = nullptr;  // of the open stream
  std::thread thread_;
};

}  // namespace smartpipe
