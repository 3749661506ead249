// The rendezvous store over the service's own key-value calls.
#pragma once

#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "grpcpp/grpcpp.h"
#include "services/base/ids.h"
#include "services/base/key_value_store.h"
#include "smartpipe/v1/freeze_service.grpc.pb.h"

namespace smartpipe {

/// KeyValueStore of one generation. Calls other than waits get kCallTimeout.  Threads: any.
/// Errors: as KeyValueStore, and FAILED_PRECONDITION for a stale generation or a run that is over.
class GrpcKeyValueStore final : public KeyValueStore {
 public:
  static constexpr absl::Duration kCallTimeout = absl::Seconds(10);

  /// `address` names the service in messages.
  GrpcKeyValueStore(std::shared_ptr<grpc::Channel> channel, std::string address,
                    Generation generation)
      : channel_(std::move(channel)),
        stub_(v1::FreezeService::NewStub(channel_)),
        address_(std::move(address)),
        generation_(generation) {}

  absl::Status Set(const std::string& key, const std::string& value) override;
  absl::StatusOr<std::string> Get(const std::string& key, absl::Duration timeout) override;
  absl::StatusOr<int64_t> Add(const std::string& key, int64_t amount) override;
  absl::StatusOr<std::string> CompareAndSet(const std::string& key, const std::string& expected,
                                            const std::string& desired) override;
  absl::StatusOr<bool> Check(const std::vector<std::string>& keys) override;
  absl::Status Wait(const std::vector<std::string>& keys, absl::Duration timeout) override;
  absl::StatusOr<bool> Delete(const std::string& key) override;
  absl::StatusOr<int64_t> NumKeys() override;
  void Cancel() override;
  /// Like Cancel, but pending and later calls return `why` (not OK). The first reason stays.
  void CancelBecause(const absl::Status& why) ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  /// Runs one call, cancellable.
  template <typename Method, typename Request, typename Response>
  absl::Status Call(Method method, const Request& request, Response* response,
                    absl::Duration timeout);
  absl::StatusOr<v1::GetKeysResponse> GetAll(const std::vector<std::string>& keys,
                                             absl::Duration timeout);

  const std::shared_ptr<grpc::Channel> channel_;
  const std::unique_ptr<v1::FreezeService::Stub> stub_;
  const std::string address_;
  const Generation generation_;

  absl::Mutex mutex_;
  std::set<grpc::ClientContext*> pending_ ABSL_GUARDED_BY(mutex_);
  absl::Status cancelled_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace smartpipe
