// The rendezvous key-value store of the current generation.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "services/base/ids.h"

namespace smartpipe {

/// Keys of one generation at a time; a new generation starts empty.
///
/// Errors of all methods: FAILED_PRECONDITION (stale generation, or Close's reason),
/// INVALID_ARGUMENT (empty key), RESOURCE_EXHAUSTED (a limit of services/base/limits.h, or too many
/// waiting calls).  Threads: any.
class KeyValueSpace {
 public:
  /// Drops all keys; from now on only `generation` is served.
  void Open(Generation generation);
  /// Ends every waiting call, and every later one until Open, with FAILED_PRECONDITION and `why`.
  void Close(const std::string& why);

  absl::Status Set(Generation generation, const std::string& key, const std::string& value);
  /// Waits until all keys are there. `cancelled` is asked at least every 100 ms.
  /// Errors: DEADLINE_EXCEEDED naming the missing keys, CANCELLED.
  absl::StatusOr<std::vector<std::string>> Get(Generation generation,
                                               const std::vector<std::string>& keys,
                                               absl::Time deadline,
                                               const std::function<bool()>& cancelled);
  /// Errors: INVALID_ARGUMENT when the value is not a decimal number or the sum overflows.
  absl::StatusOr<int64_t> Add(Generation generation, const std::string& key, int64_t amount);
  /// Returns what the key holds afterwards; empty if absent.
  absl::StatusOr<std::string> CompareAndSet(Generation generation, const std::string& key,
                                            const std::string& expected,
                                            const std::string& desired);
  absl::StatusOr<bool> Check(Generation generation, const std::vector<std::string>& keys);
  absl::StatusOr<bool> Delete(Generation generation, const std::string& key);
  absl::StatusOr<int64_t> Count(Generation generation);

 private:
  absl::Status CheckOpen(Generation generation) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status Put(const std::string& key, std::string value) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  mutable absl::Mutex mutex_;
  absl::CondVar changed_;
  Generation generation_ ABSL_GUARDED_BY(mutex_);  // 0 = not opened yet
  std::string closed_why_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, std::string> values_ ABSL_GUARDED_BY(mutex_);
  int64_t num_bytes_ ABSL_GUARDED_BY(mutex_) = 0;  // of all keys and values
  int num_waiting_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace smartpipe
