// What a worker or a tool calls to put and get layers: retries, resuming, digests.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "services/base/content_digest.h"
#include "services/base/ids.h"
#include "smartpipe/v1/parameter_service.grpc.pb.h"

namespace smartpipe {

struct ParameterClientOptions {
  std::shared_ptr<grpc::Channel> channel;
  int attempts_max = 8;                                 // >= 1, in a row that bring nothing forward
  absl::Duration first_wait = absl::Milliseconds(100);  // before the second; doubles each time
  absl::Duration wait_max = absl::Seconds(5);
  absl::Duration call_timeout = absl::Minutes(10);  // of one attempt
  int64_t chunk_bytes = 1 << 20;                    // 1..limits::kLayerChunkBytesMax
  std::function<void(absl::Duration)> sleep = [](absl::Duration wait) { absl::SleepFor(wait); };
};

/// Where a layer belongs; fields as in PutLayerHeader.
struct LayerPlace {
  std::string run;
  Generation generation;
  Step step;
  LayerIndex layer;
  int32_t num_layers = 0;
  std::string name;
};

struct PutOutcome {
  bool already_there = false;        // no bytes were sent
  bool checkpoint_complete = false;  // this was the last layer
  int64_t bytes_sent = 0;            // over all attempts
};

struct StoredCheckpoint {
  Step step;
  Generation generation;
  std::vector<v1::StoredLayer> layers;
};

/// Calls that end with UNAVAILABLE are repeated, with growing waits, from where they stopped; all
/// other errors are returned as the service said them (see the proto file), with what was called.
/// Threads: all methods from any thread; each blocks until it is done, except Cancel.
class ParameterClient {
 public:
  explicit ParameterClient(ParameterClientOptions options);

  /// Ends the calls under way and all later ones with CANCELLED; a wait between two attempts ends
  /// when options.sleep does.
  void Cancel() ABSL_LOCKS_EXCLUDED(mutex_);

  /// Stores `bytes` as the layer's content. Asks first, so a content that the store has costs one
  /// message. `digest` spares its computation to a caller that knows it (a frozen layer's does not
  /// change).
  absl::StatusOr<PutOutcome> PutLayer(const LayerPlace& place, absl::string_view bytes,
                                      std::optional<ContentDigest> digest = std::nullopt);
  /// Stores a content that the store has, without its bytes.  Errors: NOT_FOUND if it has not.
  absl::StatusOr<PutOutcome> PutStoredLayer(const LayerPlace& place, const ContentDigest& digest,
                                            int64_t size_bytes);
  /// The layer's bytes, digest checked.
  /// Errors: DATA_LOSS when they are wrong at the service; UNAVAILABLE when they came wrong each
  /// time; RESOURCE_EXHAUSTED when the layer has more than `size_bytes_max`.
  absl::StatusOr<std::string> GetLayer(const std::string& run, Step step, LayerIndex layer,
                                       int64_t size_bytes_max = int64_t{1} << 40);
  /// Without a step: the newest complete one without damage. Errors: NOT_FOUND if there is none.
  absl::StatusOr<StoredCheckpoint> GetCheckpoint(const std::string& run,
                                                 std::optional<Step> step = std::nullopt);
  /// generation 0 = not fenced.
  absl::Status DeleteCheckpoint(const std::string& run, Step step, Generation generation);
  /// All checkpoints of the run, also incomplete and damaged ones, by step.
  absl::StatusOr<std::vector<v1::Checkpoint>> ListCheckpoints(const std::string& run);
  /// Removes what no checkpoint holds. Returns the bytes freed.
  absl::StatusOr<int64_t> CollectGarbage();

 private:
  class Attempt;
  class Retry;
  struct Received;

  /// Without `bytes` only a content that the store has.
  absl::StatusOr<PutOutcome> Put(const v1::PutLayerHeader& header,
                                 std::optional<absl::string_view> bytes);
  absl::StatusOr<v1::PutLayerResponse> Send(const v1::PutLayerHeader& header,
                                            absl::string_view bytes, std::optional<int64_t> offset,
                                            int64_t* bytes_sent);
  absl::Status Receive(const v1::GetLayerRequest& request, int64_t size_bytes_max,
                       Received& received);
  template <typename Method, typename Request, typename Response>
  absl::Status Call(Method method, const Request& request, Response* response);

  const ParameterClientOptions options_;
  const std::unique_ptr<v1::ParameterService::Stub> stub_;
  absl::Mutex mutex_;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  std::set<grpc::ClientContext*> attempts_ ABSL_GUARDED_BY(mutex_);  // under way
};

}  // namespace smartpipe
