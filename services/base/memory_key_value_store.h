// KeyValueStore in the memory of one process: what the service keeps behind its calls, and what
// tests rendezvous over.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "services/base/key_value_store.h"
#include "services/base/limits.h"
#include "services/base/status_macros.h"

namespace smartpipe {

/// Limits: services/base/limits.h; what is over one is refused with RESOURCE_EXHAUSTED and changes
/// nothing. Threads: all methods from any thread.  Cost: O(log keys); a waiting call costs no CPU.
class MemoryKeyValueStore final : public KeyValueStore {
 public:
  absl::Status Set(const std::string& key, const std::string& value) override {
    absl::MutexLock lock(&mutex_);
    SP_RETURN_IF_ERROR(CheckNotCancelled());
    return Put(key, value);
  }

  absl::StatusOr<std::string> Get(const std::string& key, absl::Duration timeout) override {
    absl::MutexLock lock(&mutex_);
    SP_RETURN_IF_ERROR(WaitLocked({key}, timeout));
    return entries_.at(key);
  }

  /// INVALID_ARGUMENT when the key holds something that is not a decimal number.
  absl::StatusOr<int64_t> Add(const std::string& key, int64_t amount) override {
    absl::MutexLock lock(&mutex_);
    SP_RETURN_IF_ERROR(CheckNotCancelled());
    int64_t value = 0;
    auto it = entries_.find(key);
    if (it != entries_.end() && !absl::SimpleAtoi(it->second, &value)) {
      return absl::InvalidArgumentError(absl::StrCat("key \"", key, "\" does not hold a counter"));
    }
    if (__builtin_add_overflow(value, amount, &value)) {
      return absl::OutOfRangeError(
          absl::StrCat("counter \"", key, "\" would leave the range of 64 bits"));
    }
    SP_RETURN_IF_ERROR(Put(key, absl::StrCat(value)));
    return value;
  }

  absl::StatusOr<std::string> CompareAndSet(const std::string& key, const std::string& expected,
                                            const std::string& desired) override {
    absl::MutexLock lock(&mutex_);
    SP_RETURN_IF_ERROR(CheckNotCancelled());
    auto it = entries_.find(key);
    const std::string held = it == entries_.end() ? std::string() : it->second;
    if (held != expected) return held;
    SP_RETURN_IF_ERROR(Put(key, desired));
    return desired;
  }

  absl::StatusOr<bool> Check(const std::vector<std::string>& keys) override {
    absl::MutexLock lock(&mutex_);
    SP_RETURN_IF_ERROR(CheckNotCancelled());
    return Missing(keys).empty();
  }

  absl::Status Wait(const std::vector<std::string>& keys, absl::Duration timeout) override {
    absl::MutexLock lock(&mutex_);
    return WaitLocked(keys, timeout);
  }

  absl::StatusOr<bool> Delete(const std::string& key) override {
    absl::MutexLock lock(&mutex_);
    SP_RETURN_IF_ERROR(CheckNotCancelled());
    return entries_.erase(key) > 0;
  }

  absl::StatusOr<int64_t> NumKeys() override {
    absl::MutexLock lock(&mutex_);
    SP_RETURN_IF_ERROR(CheckNotCancelled());
    return static_cast<int64_t>(entries_.size());
  }

  void Cancel() override {
    absl::MutexLock lock(&mutex_);
    cancelled_ = true;
  }

  /// Drops every key that starts with `prefix`, as an ended generation's; returns how many there
  /// were.
  int64_t DeletePrefix(absl::string_view prefix) {
    absl::MutexLock lock(&mutex_);
    int64_t num_deleted = 0;
    for (auto it = entries_.lower_bound(std::string(prefix));
         it != entries_.end() && absl::StartsWith(it->first, prefix); ++num_deleted) {
      it = entries_.erase(it);
    }
    return num_deleted;
  }

 private:
  absl::Status CheckNotCancelled() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return cancelled_ ? absl::CancelledError("the rendezvous store was closed") : absl::OkStatus();
  }

  std::vector<std::string> Missing(const std::vector<std::string>& keys) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    std::vector<std::string> missing;
    for (const std::string& key : keys) {
      if (entries_.find(key) == entries_.end()) missing.push_back(key);
    }
    return missing;
  }

  absl::Status WaitLocked(const std::vector<std::string>& keys, absl::Duration timeout)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    auto ready = [this, &keys]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return cancelled_ || Missing(keys).empty();
    };
    const bool in_time = mutex_.AwaitWithTimeout(absl::Condition(&ready), timeout);
    SP_RETURN_IF_ERROR(CheckNotCancelled());
    if (in_time) return absl::OkStatus();
    return absl::DeadlineExceededError(absl::StrCat(
        "waited ", absl::FormatDuration(timeout), " for key ", absl::StrJoin(Missing(keys), ", ")));
  }

  absl::Status Put(const std::string& key, const std::string& value)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (static_cast<int64_t>(key.size()) > limits::kKeyValueKeyBytesMax) {
      return absl::ResourceExhaustedError(
          absl::StrCat("a key of ", key.size(), " bytes; at most ", limits::kKeyValueKeyBytesMax));
    }
    if (static_cast<int64_t>(value.size()) > limits::kKeyValueValueBytesMax) {
      return absl::ResourceExhaustedError(absl::StrCat("a value of ", value.size(),
                                                       " bytes for key \"", key, "\"; at most ",
                                                       limits::kKeyValueValueBytesMax));
    }
    auto it = entries_.find(key);
    if (it != entries_.end()) {
      it->second = value;
      return absl::OkStatus();
    }
    if (static_cast<int64_t>(entries_.size()) >= limits::kKeyValueEntriesMax) {
      return absl::ResourceExhaustedError(absl::StrCat(
          "the store holds ", entries_.size(), " keys; at most ", limits::kKeyValueEntriesMax));
    }
    entries_.emplace(key, value);
    return absl::OkStatus();
  }

  absl::Mutex mutex_;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  std::map<std::string, std::string> entries_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace smartpipe
