// The layer store's service in this process, and hands that speak its protocol directly.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "services/parameter_service/client.h"
#include "services/parameter_service/parameter_service_impl.h"
#include "services/rpc/channel.h"
#include "services/rpc/server.h"
#include "services/rpc/status.h"
#include "tests/testutil/process.h"

namespace smartpipe::testutil {

/// A service over `dir`, on a port of its own.
class ParameterHarness {
 public:
  explicit ParameterHarness(const std::string& dir, int64_t quota_bytes = 0,
                            const std::string& listen = "127.0.0.1:0",
                            FileOperations& files = SystemFiles())
      : service_(LayerStore::Open({dir, quota_bytes}, files).value()),
        server_(StartServer({.listen_address = listen}, {{ParameterServiceImpl::kName, &service_}})
                    .value()) {}

  LayerStore& store() { return service_.store(); }
  const std::string& address() const { return server_->address(); }
  std::shared_ptr<grpc::Channel> Channel() {
    return MakeChannel({.address = address(), .keepalive = {}});
  }
  std::unique_ptr<v1::ParameterService::Stub> Stub() {
    return v1::ParameterService::NewStub(Channel());
  }
  /// A client that does not wait between its attempts.
  ParameterClient Client(int64_t chunk_bytes = 1 << 20) {
    return ParameterClient({.channel = Channel(),
                            .call_timeout = absl::Seconds(60),
                            .chunk_bytes = chunk_bytes,
                            .sleep = [](absl::Duration) {}});
  }

 private:
  ParameterServiceImpl service_;
  std::unique_ptr<RpcServer> server_;
};

inline LayerPlace Place(int64_t step, int32_t layer, int32_t num_layers = 3,
                        int64_t generation = 1) {
  return {"run",      Generation(generation),      Step(step), LayerIndex(layer),
          num_layers, absl::StrCat("block", layer)};
}

inline v1::PutLayerRequest Header(const LayerPlace& place, absl::string_view bytes) {
  v1::PutLayerRequest request;
  v1::PutLayerHeader& header = *request.mutable_header();
  header.set_run_id(place.run);
  header.set_generation(place.generation.value());
  header.set_step(place.step.value());
  header.set_layer(place.layer.value());
  header.set_num_layers(place.num_layers);
  header.set_name(place.name);
  header.set_sha256(DigestOf(bytes).hex());
  header.set_size_bytes(static_cast<int64_t>(bytes.size()));
  return request;
}

inline v1::PutLayerRequest Chunk(int64_t offset, absl::string_view data) {
  v1::PutLayerRequest request;
  request.mutable_chunk()->set_offset(offset);
  request.mutable_chunk()->set_data(data.data(), data.size());
  return request;
}

/// One put by hand.
class PutStream {
 public:
  explicit PutStream(v1::ParameterService::Stub& stub) {
    // A test that waits for what never comes fails by this.
    context_.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
    writer_ = stub.PutLayer(&context_, &response_);
  }
  bool Write(const v1::PutLayerRequest& request) { return writer_->Write(request); }
  absl::Status Finish() {
    writer_->WritesDone();
    return FromGrpcStatus(writer_->Finish());
  }
  /// Cuts the connection of the call.
  void Break() {
    context_.TryCancel();
    (void)writer_->Finish();
  }
  const v1::PutLayerResponse& response() const { return response_; }

 private:
  grpc::ClientContext context_;
  v1::PutLayerResponse response_;
  std::unique_ptr<grpc::ClientWriter<v1::PutLayerRequest>> writer_;
};

template <typename Method, typename Request, typename Response>
absl::Status CallParameter(v1::ParameterService::Stub& stub, Method method, const Request& request,
                           Response* response) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
  return FromGrpcStatus((stub.*method)(&context, request, response));
}

/// Bytes that differ from place to place.
inline std::string Noise(size_t size, uint64_t seed) {
  std::string bytes(size, '\0');
  uint64_t x = seed * 0x9E3779B97F4A7C15ull + 1;
  for (char& c : bytes) {
    x ^= x << 13, x ^= x >> 7, x ^= x << 17;
    c = static_cast<char>(x);
  }
  return bytes;
}

}  // namespace smartpipe::testutil
