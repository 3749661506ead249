// A bounded queue between threads, closable from either side.
#pragma once

#include <cstddef>
#include <deque>
#include <optional>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace smartpipe {

/// First in, first out; at most `capacity` (>= 1) entries.
///
/// Push blocks while full; Pop blocks while empty. After Close, Push fails at once, Pop hands out
/// what is left and then fails.  Threads: all methods from any thread.
template <typename T>
class BoundedQueue {
 public:
  explicit BoundedQueue(size_t capacity) : capacity_(capacity) {}

  /// False when the queue is closed; `value` is dropped then.
  bool Push(T value) ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(this, &BoundedQueue::CanPush));
    if (closed_) return false;
    entries_.push_back(std::move(value));
    return true;
  }

  /// False when the queue is full or closed; never blocks.
  bool TryPush(T value) ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    if (closed_ || entries_.size() >= capacity_) return false;
    entries_.push_back(std::move(value));
    return true;
  }

  /// Nothing when the queue is closed and drained, or when `timeout` passed.
  std::optional<T> Pop(absl::Duration timeout = absl::InfiniteDuration())
      ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    mutex_.AwaitWithTimeout(absl::Condition(this, &BoundedQueue::CanPop), timeout);
    if (entries_.empty()) return std::nullopt;
    T value = std::move(entries_.front());
    entries_.pop_front();
    return value;
  }

  void Close() ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    closed_ = true;
  }

  bool closed() const ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    return closed_;
  }

  size_t size() const ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    return entries_.size();
  }

 private:
  bool CanPush() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return closed_ || entries_.size() < capacity_;
  }
  bool CanPop() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return closed_ || !entries_.empty(); }

  const size_t capacity_;
  mutable absl::Mutex mutex_;
  std::deque<T> entries_ ABSL_GUARDED_BY(mutex_);
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace smartpipe
