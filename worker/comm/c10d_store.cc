#include "worker/comm/c10d_store.h"

#include <utility>

#include "absl/time/time.h"
#include "c10/util/Exception.h"

namespace smartpipe {
namespace {

std::string ToString(const std::vector<uint8_t>& bytes) {
  return std::string(bytes.begin(), bytes.end());
}
std::vector<uint8_t> ToBytes(const std::string& text) {
  return std::vector<uint8_t>(text.begin(), text.end());
}

// c10d writes "no limit" as zero.
absl::Duration ToDuration(std::chrono::milliseconds timeout) {
  return timeout == c10d::Store::kNoTimeout ? absl::InfiniteDuration() : absl::FromChrono(timeout);
}

}  // namespace

C10dStore::C10dStore(std::shared_ptr<KeyValueStore> store, std::chrono::milliseconds timeout)
    : c10d::Store(timeout), store_(std::move(store)) {}

c10::intrusive_ptr<c10d::Store> C10dStore::clone() {
  return c10::make_intrusive<C10dStore>(store_, timeout_);
}

void C10dStore::set(const std::string& key, const std::vector<uint8_t>& value) {
  ThrowIfError(store_->Set(key, ToString(value)));
}

std::vector<uint8_t> C10dStore::compareSet(const std::string& key,
                                           const std::vector<uint8_t>& expected,
                                           const std::vector<uint8_t>& desired) {
  absl::StatusOr<std::string> held =
      store_->CompareAndSet(key, ToString(expected), ToString(desired));
  ThrowIfError(held.status());
  return ToBytes(*held);
}

std::vector<uint8_t> C10dStore::get(const std::string& key) {
  absl::StatusOr<std::string> value = store_->Get(key, ToDuration(timeout_));
  ThrowIfError(value.status());
  return ToBytes(*value);
}

int64_t C10dStore::add(const std::string& key, int64_t value) {
  absl::StatusOr<int64_t> sum = store_->Add(key, value);
  ThrowIfError(sum.status());
  return *sum;
}

bool C10dStore::deleteKey(const std::string& key) {
  absl::StatusOr<bool> deleted = store_->Delete(key);
  ThrowIfError(deleted.status());
  return *deleted;
}

bool C10dStore::check(const std::vector<std::string>& keys) {
  absl::StatusOr<bool> present = store_->Check(keys);
  ThrowIfError(present.status());
  return *present;
}

int64_t C10dStore::getNumKeys() {
  absl::StatusOr<int64_t> num_keys = store_->NumKeys();
  ThrowIfError(num_keys.status());
  return *num_keys;
}

void C10dStore::wait(const std::vector<std::string>& keys) { wait(keys, timeout_); }

void C10dStore::wait(const std::vector<std::string>& keys,
                     const std::chrono::milliseconds& timeout) {
  ThrowIfError(store_->Wait(keys, ToDuration(timeout)));
}

absl::Status C10dStore::status() const {
  absl::MutexLock lock(&mutex_);
  return status_;
}

void C10dStore::ThrowIfError(const absl::Status& status) {
  if (status.ok()) return;
  {
    absl::MutexLock lock(&mutex_);
    if (status_.ok()) status_ = status;
  }
  if (absl::IsUnavailable(status)) C10_THROW_ERROR(DistNetworkError, std::string(status.message()));
  C10_THROW_ERROR(DistStoreError, std::string(status.message()));
}

}  // namespace smartpipe
