#include "freeze_service/rpc/key_value_space.h"

#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "services/base/limits.h"
#include "services/base/status_macros.h"

namespace smartpipe {
namespace {

// Each waiting call holds a thread of the server.
constexpr int kWaitingMax = limits::kWorkersMax;
constexpr size_t kKeysNamedMax = 5;

absl::Status CheckKey(const std::string& key) {
  if (key.empty()) return absl::InvalidArgumentError("a key is empty");
  if (key.size() <= static_cast<size_t>(limits::kKeyValueKeyBytesMax)) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat(
      "a key has ", key.size(), " bytes; the limit is ", limits::kKeyValueKeyBytesMax));
}

absl::Status CheckKeys(const std::vector<std::string>& keys) {
  if (keys.empty()) return absl::InvalidArgumentError("the request has no keys");
  if (keys.size() > static_cast<size_t>(limits::kKeyValueEntriesMax)) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "the request has ", keys.size(), " keys; the limit is ", limits::kKeyValueEntriesMax));
  }
  for (const std::string& key : keys) SP_RETURN_IF_ERROR(CheckKey(key));
  return absl::OkStatus();
}

std::string NameMissing(const std::map<std::string, std::string>& values,
                        const std::vector<std::string>& keys) {
  std::string named;
  size_t num_missing = 0;
  for (const std::string& key : keys) {
    if (values.contains(key)) continue;
    if (++num_missing <= kKeysNamedMax)
      absl::StrAppend(&named, named.empty() ? "" : ", ", absl::CHexEscape(key));
  }
  if (num_missing > kKeysNamedMax)
    absl::StrAppend(&named, " and ", num_missing - kKeysNamedMax, " more");
  return named;
}

bool HasAll(const std::map<std::string, std::string>& values,
            const std::vector<std::string>& keys) {
  for (const std::string& key : keys) {
    if (!values.contains(key)) return false;
  }
  return true;
}

}  // namespace

void KeyValueSpace::Open(Generation generation) {
  absl::MutexLock lock(&mutex_);
  generation_ = generation;
  closed_why_.clear();
  values_.clear();
  num_bytes_ = 0;
  changed_.SignalAll();
}

void KeyValueSpace::Close(const std::string& why) {
  absl::MutexLock lock(&mutex_);
  closed_why_ = why;
  changed_.SignalAll();
}

absl::Status KeyValueSpace::CheckOpen(Generation generation) const {
  if (!closed_why_.empty()) return absl::FailedPreconditionError(closed_why_);
  if (generation_ == Generation(0)) {
    return absl::FailedPreconditionError(
        "the run has not started: there are no keys before all workers are there");
  }
  if (generation == generation_) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat("generation ", generation.value(),
                                                    " is stale: the run is at generation ",
                                                    generation_.value()));
}

absl::Status KeyValueSpace::Put(const std::string& key, std::string value) {
  if (value.size() > static_cast<size_t>(limits::kKeyValueValueBytesMax)) {
    return absl::ResourceExhaustedError(absl::StrCat("the value of key ", absl::CHexEscape(key),
                                                     " has ", value.size(), " bytes; the limit is ",
                                                     limits::kKeyValueValueBytesMax));
  }
  if (!values_.contains(key) &&
      values_.size() >= static_cast<size_t>(limits::kKeyValueEntriesMax)) {
    return absl::ResourceExhaustedError(absl::StrCat("generation ", generation_.value(), " has ",
                                                     values_.size(), " keys; that is the limit"));
  }
  const auto known = values_.find(key);
  const int64_t bytes_before =
      known == values_.end() ? 0 : static_cast<int64_t>(key.size() + known->second.size());
  const int64_t num_bytes =
      num_bytes_ - bytes_before + static_cast<int64_t>(key.size() + value.size());
  if (num_bytes > limits::kKeyValueBytesMax) {
    return absl::ResourceExhaustedError(
        absl::StrCat("generation ", generation_.value(), " would hold ", num_bytes,
                     " bytes of keys and values; the limit is ", limits::kKeyValueBytesMax));
  }
  num_bytes_ = num_bytes;
  values_[key] = std::move(value);
  changed_.SignalAll();
  return absl::OkStatus();
}

absl::Status KeyValueSpace::Set(Generation generation, const std::string& key,
                                const std::string& value) {
  SP_RETURN_IF_ERROR(CheckKey(key));
  absl::MutexLock lock(&mutex_);
  SP_RETURN_IF_ERROR(CheckOpen(generation));
  return Put(key, value);
}

absl::StatusOr<std::vector<std::string>> KeyValueSpace::Get(
    Generation generation, const std::vector<std::string>& keys, absl::Time deadline,
    const std::function<bool()>& cancelled) {
  SP_RETURN_IF_ERROR(CheckKeys(keys));
  absl::MutexLock lock(&mutex_);
  if (num_waiting_ >= kWaitingMax) {
    return absl::ResourceExhaustedError(
        absl::StrCat(num_waiting_, " calls wait for keys; that is the limit"));
  }
  ++num_waiting_;
  absl::Cleanup done = [this]() ABSL_NO_THREAD_SAFETY_ANALYSIS { --num_waiting_; };
  while (true) {
    SP_RETURN_IF_ERROR(CheckOpen(generation));
    if (HasAll(values_, keys)) break;
    if (cancelled()) return absl::CancelledError("the caller has gone");
    const absl::Time now = absl::Now();
    if (now >= deadline) {
      return absl::DeadlineExceededError(
          absl::StrCat("these keys were not set in time: ", NameMissing(values_, keys)));
    }
    changed_.WaitWithTimeout(&mutex_, std::min(absl::Milliseconds(100), deadline - now));
  }
  std::vector<std::string> result;
  int64_t num_bytes = 0;
  for (const std::string& key : keys) {
    const std::string& value = values_.at(key);
    num_bytes += static_cast<int64_t>(value.size());
    if (num_bytes > limits::kGrpcMessageBytesMax / 2) {
      return absl::ResourceExhaustedError(
          absl::StrCat("the values of these ", keys.size(),
                       " keys do not fit one answer; ask for fewer at once"));
    }
    result.push_back(value);
  }
  return result;
}

absl::StatusOr<int64_t> KeyValueSpace::Add(Generation generation, const std::string& key,
                                           int64_t amount) {
  SP_RETURN_IF_ERROR(CheckKey(key));
  absl::MutexLock lock(&mutex_);
  SP_RETURN_IF_ERROR(CheckOpen(generation));
  int64_t value = 0;
  auto found = values_.find(key);
  if (found != values_.end() && !absl::SimpleAtoi(found->second, &value)) {
    return absl::InvalidArgumentError(
        absl::StrCat("key ", absl::CHexEscape(key), " holds no decimal number"));
  }
  if (__builtin_add_overflow(value, amount, &value)) {
    return absl::InvalidArgumentError(
        absl::StrCat("adding ", amount, " to key ", absl::CHexEscape(key), " overflows"));
  }
  SP_RETURN_IF_ERROR(Put(key, absl::StrCat(value)));
  return value;
}

absl::StatusOr<std::string> KeyValueSpace::CompareAndSet(Generation generation,
                                                         const std::string& key,
                                                         const std::string& expected,
                                                         const std::string& desired) {
  SP_RETURN_IF_ERROR(CheckKey(key));
  absl::MutexLock lock(&mutex_);
  SP_RETURN_IF_ERROR(CheckOpen(generation));
  auto found = values_.find(key);
  const std::string held = found == values_.end() ? "" : found->second;
  if (held != expected) return held;
  SP_RETURN_IF_ERROR(Put(key, desired));
  return desired;
}

absl::StatusOr<bool> KeyValueSpace::Check(Generation generation,
                                          const std::vector<std::string>& keys) {
  SP_RETURN_IF_ERROR(CheckKeys(keys));
  absl::MutexLock lock(&mutex_);
  SP_RETURN_IF_ERROR(CheckOpen(generation));
  return HasAll(values_, keys);
}

absl::StatusOr<bool> KeyValueSpace::Delete(Generation generation, const std::string& key) {
  SP_RETURN_IF_ERROR(CheckKey(key));
  absl::MutexLock lock(&mutex_);
  SP_RETURN_IF_ERROR(CheckOpen(generation));
  return values_.erase(key) > 0;
}

absl::StatusOr<int64_t> KeyValueSpace::Count(Generation generation) {
  absl::MutexLock lock(&mutex_);
  SP_RETURN_IF_ERROR(CheckOpen(generation));
  return static_cast<int64_t>(values_.size());
}

}  // namespace smartpipe
