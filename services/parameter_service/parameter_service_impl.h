// The gRPC face of the layer store: decode, call, encode.
#pragma once

#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "services/parameter_service/layer_store.h"
#include "smartpipe/v1/parameter_service.grpc.pb.h"

namespace smartpipe {

/// proto/smartpipe/v1/parameter_service.proto says what each call does and which errors it has.
/// Threads: any; a put or a get holds one thread as long as its stream lasts, and one chunk of
/// memory.
class ParameterServiceImpl final : public v1::ParameterService::Service {
 public:
  static constexpr char kName[] = "smartpipe.v1.ParameterService";

  explicit ParameterServiceImpl(std::unique_ptr<LayerStore> store) : store_(std::move(store)) {}
  LayerStore& store() { return *store_; }

  grpc::Status PutLayer(grpc::ServerContext* context,
                        grpc::ServerReader<v1::PutLayerRequest>* reader,
                        v1::PutLayerResponse* response) override;
  grpc::Status GetLayer(grpc::ServerContext* context, const v1::GetLayerRequest* request,
                        grpc::ServerWriter<v1::GetLayerResponse>* writer) override;
  grpc::Status GetCheckpoint(grpc::ServerContext* context, const v1::GetCheckpointRequest* request,
                             v1::GetCheckpointResponse* response) override;
  grpc::Status ListCheckpoints(grpc::ServerContext* context,
                               const v1::ListCheckpointsRequest* request,
                               v1::ListCheckpointsResponse* response) override;
  grpc::Status PinCheckpoint(grpc::ServerContext* context, const v1::PinCheckpointRequest* request,
                             v1::PinCheckpointResponse* response) override;
  grpc::Status UnpinCheckpoint(grpc::ServerContext* context,
                               const v1::UnpinCheckpointRequest* request,
                               v1::UnpinCheckpointResponse* response) override;
  grpc::Status DeleteCheckpoint(grpc::ServerContext* context,
                                const v1::DeleteCheckpointRequest* request,
                                v1::DeleteCheckpointResponse* response) override;
  grpc::Status CollectGarbage(grpc::ServerContext* context,
                              const v1::CollectGarbageRequest* request,
                              v1::CollectGarbageResponse* response) override;
  grpc::Status GetUsage(grpc::ServerContext* context, const v1::GetUsageRequest* request,
                        v1::GetUsageResponse* response) override;

 private:
  absl::StatusOr<PutState> Put(grpc::ServerReader<v1::PutLayerRequest>& reader);
  absl::Status Get(const v1::GetLayerRequest& request,
                   grpc::ServerWriter<v1::GetLayerResponse>& writer);

  const std::unique_ptr<LayerStore> store_;
};

}  // namespace smartpipe
