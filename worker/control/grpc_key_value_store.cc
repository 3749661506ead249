#include "worker/control/grpc_key_value_store.h"

#include "absl/strings/str_cat.h"
#include "services/base/status_macros.h"
#include "services/rpc/channel.h"
#include "services/rpc/status.h"
#include "worker/control/encode.h"

namespace smartpipe {
namespace {

// The service answers a wait a little before its deadline, so that the answer can name the missing
// keys.
constexpr absl::Duration kAnswerTime = absl::Milliseconds(200);

}  // namespace

template <typename Method, typename Request, typename Response>
absl::Status GrpcKeyValueStore::Call(Method method, const Request& request, Response* response,
                                     absl::Duration timeout) {
  grpc::ClientContext context;
  SetTimeout(context, timeout);
  {
    absl::MutexLock lock(&mutex_);
    if (!cancelled_.ok()) return cancelled_;
    pending_.insert(&context);
  }
  const grpc::Status status = (stub_.get()->*method)(&context, request, response);
  absl::MutexLock lock(&mutex_);
  pending_.erase(&context);
  if (!status.ok() && !cancelled_.ok()) return cancelled_;
  // A call may notice the loss before the session does.
  if (status.error_code() == grpc::StatusCode::UNAVAILABLE)
    return ServiceGone(address_, status.error_message());
  return FromGrpcStatus(status);
}

absl::Status GrpcKeyValueStore::Set(const std::string& key, const std::string& value) {
  v1::SetKeyRequest request;
  request.set_generation(generation_.value());
  request.set_key(key);
  request.set_value(value);
  v1::SetKeyResponse response;
  return Call(&v1::FreezeService::Stub::SetKey, request, &response, kCallTimeout);
}

absl::StatusOr<v1::GetKeysResponse> GrpcKeyValueStore::GetAll(const std::vector<std::string>& keys,
                                                              absl::Duration timeout) {
  v1::GetKeysRequest request;
  request.set_generation(generation_.value());
  for (const std::string& key : keys) request.add_keys(key);
  v1::GetKeysResponse response;
  SP_RETURN_IF_ERROR(
      Call(&v1::FreezeService::Stub::GetKeys, request, &response, timeout + kAnswerTime));
  if (static_cast<size_t>(response.values_size()) != keys.size()) {
    return absl::InternalError(absl::StrCat("the freeze service gave ", response.values_size(),
                                            " values for ", keys.size(), " keys"));
  }
  return response;
}

absl::StatusOr<std::string> GrpcKeyValueStore::Get(const std::string& key, absl::Duration timeout) {
  SP_ASSIGN_OR_RETURN(v1::GetKeysResponse response, GetAll({key}, timeout));
  return std::move(*response.mutable_values(0));
}

absl::Status GrpcKeyValueStore::Wait(const std::vector<std::string>& keys, absl::Duration timeout) {
  if (keys.empty()) return absl::OkStatus();
  return GetAll(keys, timeout).status();
}

absl::StatusOr<int64_t> GrpcKeyValueStore::Add(const std::string& key, int64_t amount) {
  v1::AddToKeyRequest request;
  request.set_generation(generation_.value());
  request.set_key(key);
  request.set_amount(amount);
  v1::AddToKeyResponse response;
  SP_RETURN_IF_ERROR(Call(&v1::FreezeService::Stub::AddToKey, request, &response, kCallTimeout));
  return response.value();
}

absl::StatusOr<std::string> GrpcKeyValueStore::CompareAndSet(const std::string& key,
                                                             const std::string& expected,
                                                             const std::string& desired) {
  v1::CompareAndSetKeyRequest request;
  request.set_generation(generation_.value());
  request.set_key(key);
  request.set_expected(expected);
  request.set_desired(desired);
  v1::CompareAndSetKeyResponse response;
  SP_RETURN_IF_ERROR(
      Call(&v1::FreezeService::Stub::CompareAndSetKey, request, &response, kCallTimeout));
  return response.value();
}

absl::StatusOr<bool> GrpcKeyValueStore::Check(const std::vector<std::string>& keys) {
  if (keys.empty()) return true;
  v1::CheckKeysRequest request;
  request.set_generation(generation_.value());
  for (const std::string& key : keys) request.add_keys(key);
  v1::CheckKeysResponse response;
  SP_RETURN_IF_ERROR(Call(&v1::FreezeService::Stub::CheckKeys, request, &response, kCallTimeout));
  return response.present();
}

absl::StatusOr<bool> GrpcKeyValueStore::Delete(const std::string& key) {
  v1::DeleteKeyRequest request;
  request.set_generation(generation_.value());
  request.set_key(key);
  v1::DeleteKeyResponse response;
  SP_RETURN_IF_ERROR(Call(&v1::FreezeService::Stub::DeleteKey, request, &response, kCallTimeout));
  return response.deleted();
}

absl::StatusOr<int64_t> GrpcKeyValueStore::NumKeys() {
  v1::CountKeysRequest request;
  request.set_generation(generation_.value());
  v1::CountKeysResponse response;
  SP_RETURN_IF_ERROR(Call(&v1::FreezeService::Stub::CountKeys, request, &response, kCallTimeout));
  return response.count();
}

void GrpcKeyValueStore::Cancel() {
  CancelBecause(absl::CancelledError("the key-value store was cancelled"));
}

void GrpcKeyValueStore::CancelBecause(const absl::Status& why) {
  absl::MutexLock lock(&mutex_);
  if (!cancelled_.ok()) return;
  cancelled_ = why;
  for (grpc::ClientContext* context : pending_) context->TryCancel();
}

}  // namespace smartpipe
