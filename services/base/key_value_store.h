// The rendezvous key-value store as an interface, so that the transport knows nothing of gRPC and
// tests can use memory.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace smartpipe {

/// Keys and values are bytes; limits in services/base/limits.h.
/// Errors: DEADLINE_EXCEEDED when a wait timed out (the message names the missing keys), CANCELLED
/// after Cancel(), UNAVAILABLE when the service cannot be reached.  Threads: all methods from any
/// thread.
class KeyValueStore {
 public:
  virtual ~KeyValueStore() = default;
  virtual absl::Status Set(const std::string& key, const std::string& value) = 0;
  /// Waits until the key is there.
  virtual absl::StatusOr<std::string> Get(const std::string& key, absl::Duration timeout) = 0;
  /// Adds to a decimal counter (absent = 0) and returns the new value.
  virtual absl::StatusOr<int64_t> Add(const std::string& key, int64_t amount) = 0;
  /// Sets the key to `desired` if it holds `expected` (absent counts as an empty `expected`);
  /// returns what it holds then.
  virtual absl::StatusOr<std::string> CompareAndSet(const std::string& key,
                                                    const std::string& expected,
                                                    const std::string& desired) = 0;
  virtual absl::StatusOr<bool> Check(const std::vector<std::string>& keys) = 0;
  virtual absl::Status Wait(const std::vector<std::string>& keys, absl::Duration timeout) = 0;
  virtual absl::StatusOr<bool> Delete(const std::string& key) = 0;
  virtual absl::StatusOr<int64_t> NumKeys() = 0;
  /// Ends every pending and later call with CANCELLED.
  virtual void Cancel() = 0;
};

}  // namespace smartpipe
