// c10d::Store over a KeyValueStore: how a process group finds its peers through the service.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "services/base/key_value_store.h"
#include "torch/csrc/distributed/c10d/Store.hpp"

namespace smartpipe {

/// c10d expects exceptions: a failed call throws c10::DistStoreError (DEADLINE_EXCEEDED, CANCELLED
/// and wrong use) or c10::DistNetworkError (UNAVAILABLE) with the status' message. status() keeps
/// the first one, so that the caller of c10d can report what really happened instead of parsing a
/// message. Threads: all methods from any thread, except setTimeout (before the first use).
class C10dStore : public c10d::Store {
 public:
  /// `timeout` is the limit of get() and of wait() without one; rounded up to milliseconds.
  C10dStore(std::shared_ptr<KeyValueStore> store, std::chrono::milliseconds timeout);
  using c10d::Store::compareSet;
  using c10d::Store::set;

  c10::intrusive_ptr<c10d::Store> clone() override;
  void set(const std::string& key, const std::vector<uint8_t>& value) override;
  std::vector<uint8_t> compareSet(const std::string& key, const std::vector<uint8_t>& expected,
                                  const std::vector<uint8_t>& desired) override;
  std::vector<uint8_t> get(const std::string& key) override;
  int64_t add(const std::string& key, int64_t value) override;
  bool deleteKey(const std::string& key) override;
  bool check(const std::vector<std::string>& keys) override;
  int64_t getNumKeys() override;
  void wait(const std::vector<std::string>& keys) override;
  void wait(const std::vector<std::string>& keys,
            const std::chrono::milliseconds& timeout) override;

  /// The first failure since construction; OK when there was none.
  absl::Status status() const;

 private:
  /// Records and throws a failure; returns when `status` is OK.
  void ThrowIfError(const absl::Status& status);

  const std::shared_ptr<KeyValueStore> store_;
  mutable absl::Mutex mutex_;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace smartpipe
