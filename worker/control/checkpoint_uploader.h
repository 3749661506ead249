// Carries a worker's checkpoints to the parameter service, on a thread of its own.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "services/base/content_digest.h"
#include "services/base/ids.h"
#include "services/parameter_service/client.h"
#include "worker/control/checkpoint_sink.h"

namespace smartpipe {

/// Bytes of this worker's layers over all its checkpoints, as far as they were stored.
struct CheckpointBytes {
  int64_t written = 0;  // new to the store
  int64_t shared = 0;   // the store had them
};

/// Holds one checkpoint at a time; the next waits in WaitReady until it is done.
///
/// An error of the store is a warning with the step and the cause; the rest of that checkpoint is
/// not sent, and the next one is tried. The worker whose layer completes a checkpoint deletes the
/// older complete ones beyond keep_last that are not pinned and the older incomplete ones, which
/// nobody goes on with, and collects garbage.
///
/// Threads: as CheckpointSink; Finish from that thread, Cancel from any.  Test:
/// tests/component/control/checkpoint_uploader_test.cc
class CheckpointUploader final : public CheckpointSink {
 public:
  struct Options {
    std::shared_ptr<grpc::Channel> channel;  // to the parameter service
    std::string run;                         // IsRunId
    Generation generation;
    int32_t num_layers = 1;  // of the model
    int64_t keep_last = 1;   // >= 1
    int attempts_max = 8;    // of a call while the service is unavailable
    /// Called on the uploader's thread before a checkpoint is stored: waits until the freeze
    /// service has all reports of the steps before it, which nobody would run again. An error gives
    /// the checkpoint up.
    std::function<absl::Status()> wait_reported = [] { return absl::OkStatus(); };
  };
  explicit CheckpointUploader(const Options& options);
  /// Gives up what is not stored.
  ~CheckpointUploader() override;

  /// At once after Cancel.
  std::set<LayerIndex> WaitReady() override ABSL_LOCKS_EXCLUDED(mutex_);
  void Put(WorkerCheckpoint checkpoint) override ABSL_LOCKS_EXCLUDED(mutex_);

  /// Waits until the last checkpoint is stored or given up; after `timeout` it is given up, with a
  /// warning. Returns the sums over the run.
  CheckpointBytes Finish(absl::Duration timeout) ABSL_LOCKS_EXCLUDED(mutex_);
  /// Gives up what is not stored; ends all waits. Does not block.
  void Cancel() ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  struct Content {
    ContentDigest digest;
    int64_t size_bytes = 0;
  };

  bool Ready() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return !waiting_ && !storing_; }
  bool ReadyOrCancelled() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return Ready() || cancelled_; }
  bool HasWork() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return waiting_ || cancelled_; }
  void Work() ABSL_LOCKS_EXCLUDED(mutex_);
  void Store(const WorkerCheckpoint& checkpoint) ABSL_LOCKS_EXCLUDED(mutex_);
  absl::StatusOr<PutOutcome> StoreLayer(Step step, const CheckpointLayer& layer)
      ABSL_LOCKS_EXCLUDED(mutex_);
  /// What `newest`, now complete, makes superfluous.
  absl::Status DeleteOlder(Step newest);

  const Options options_;
  ParameterClient client_;

  absl::Mutex mutex_;
  std::optional<WorkerCheckpoint> waiting_ ABSL_GUARDED_BY(mutex_);  // not taken up yet
  bool storing_ ABSL_GUARDED_BY(mutex_) = false;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  std::map<LayerIndex, Content> frozen_ ABSL_GUARDED_BY(mutex_);  // stored ones
  CheckpointBytes bytes_ ABSL_GUARDED_BY(mutex_);
  std::thread thread_;
};

}  // namespace smartpipe
