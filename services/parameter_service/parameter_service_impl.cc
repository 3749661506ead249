#include "services/parameter_service/parameter_service_impl.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "services/base/limits.h"
#include "services/base/status_macros.h"
#include "services/obs/log.h"
#include "services/rpc/status.h"

namespace smartpipe {
namespace {

constexpr int kPageDefault = 100;
constexpr size_t kSendChunkBytes = 1 << 20;

absl::StatusOr<LayerVersion> DecodeHeader(const v1::PutLayerHeader& header) {
  SP_ASSIGN_OR_RETURN(const ContentDigest digest, ParseContentDigest(header.sha256()));
  return LayerVersion{
      .run = header.run_id(),
      .generation = Generation(header.generation()),
      .step = Step(header.step()),
      .layer = LayerIndex(header.layer()),
      .num_layers = header.num_layers(),
      .entry = {.name = header.name(), .digest = digest, .size_bytes = header.size_bytes()}};
}

absl::Status CheckChunk(const v1::PutLayerRequest& request) {
  if (!request.has_chunk()) {
    return absl::InvalidArgumentError("after the header every message must be a chunk");
  }
  const auto size = static_cast<int64_t>(request.chunk().data().size());
  if (size >= 1 && size <= limits::kLayerChunkBytesMax) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("a chunk has ", size, " bytes; the range is 1 to ",
                                                 limits::kLayerChunkBytesMax));
}

void EncodeLayer(LayerIndex layer, const LayerEntry& entry, v1::StoredLayer& proto) {
  proto.set_layer(layer.value());
  proto.set_name(entry.name);
  proto.set_sha256(entry.digest.hex());
  proto.set_size_bytes(entry.size_bytes);
}

v1::CheckpointState EncodeState(CheckpointState state) {
  switch (state) {
    case CheckpointState::kIncomplete:
      return v1::CHECKPOINT_STATE_INCOMPLETE;
    case CheckpointState::kComplete:
      return v1::CHECKPOINT_STATE_COMPLETE;
    case CheckpointState::kDamaged:
      return v1::CHECKPOINT_STATE_DAMAGED;
  }
  return v1::CHECKPOINT_STATE_UNSPECIFIED;
}

void Encode(const CheckpointInfo& info, v1::Checkpoint& proto) {
  proto.set_run_id(info.run);
  proto.set_step(info.step.value());
  proto.set_generation(info.generation.value());
  proto.set_state(EncodeState(info.state));
  proto.set_num_layers(info.num_layers);
  proto.set_num_layers_stored(info.num_layers_stored);
  proto.set_size_bytes(info.size_bytes);
  proto.set_pinned(info.pinned);
}

// A token names the last entry of its page, so that what comes and goes meanwhile does not shift
// the next one.
using Position = std::pair<std::string, Step>;

absl::StatusOr<std::optional<Position>> DecodePageToken(const std::string& token) {
  if (token.empty()) return std::nullopt;
  const std::vector<std::string> parts = absl::StrSplit(token, '/');
  int64_t step = 0;
  if (parts.size() == 2 && IsRunId(parts[0]) && absl::SimpleAtoi(parts[1], &step) && step >= 0) {
    return Position(parts[0], Step(step));
  }
  return absl::InvalidArgumentError(
      "page_token is not one that this service gave; take next_page_token as it is");
}

}  // namespace

// ---- Layers -------------------------------------------------------------------------------------

absl::StatusOr<PutState> ParameterServiceImpl::Put(
    grpc::ServerReader<v1::PutLayerRequest>& reader) {
  v1::PutLayerRequest request;
  if (!reader.Read(&request) || !request.has_header()) {
    return absl::InvalidArgumentError("the first message must be the header");
  }
  SP_ASSIGN_OR_RETURN(const LayerVersion version, DecodeHeader(request.header()));
  SP_ASSIGN_OR_RETURN(const std::unique_ptr<LayerPut> put, store_->BeginPut(version));
  bool first = true;
  while (!put->state().complete && reader.Read(&request)) {
    SP_RETURN_IF_ERROR(CheckChunk(request));
    // A writer that counts on bytes of an upload that was dropped since: the answer says where to
    // go on. Within a stream a gap is a mistake.
    if (first && request.chunk().offset() > put->state().bytes_held &&
        request.chunk().offset() <= version.entry.size_bytes) {
      break;
    }
    first = false;
    SP_RETURN_IF_ERROR(put->Append(request.chunk().offset(), request.chunk().data()));
  }
  return put->state();
}

grpc::Status ParameterServiceImpl::PutLayer(grpc::ServerContext*,
                                            grpc::ServerReader<v1::PutLayerRequest>* reader,
                                            v1::PutLayerResponse* response) {
  const absl::StatusOr<PutState> state = Put(*reader);
  if (!state.ok()) {
    if (!absl::IsInvalidArgument(state.status())) LogWarning("a put: ", state.status().message());
    return ToGrpcStatus(state.status());
  }
  response->set_bytes_held(state->bytes_held);
  response->set_complete(state->complete);
  response->set_already_there(state->already_there);
  response->set_checkpoint_complete(state->checkpoint_complete);
  return grpc::Status::OK;
}

absl::Status ParameterServiceImpl::Get(const v1::GetLayerRequest& request,
                                       grpc::ServerWriter<v1::GetLayerResponse>& writer) {
  const LayerIndex layer(request.layer());
  SP_ASSIGN_OR_RETURN(const std::unique_ptr<LayerReader> reader,
                      store_->OpenLayer(request.run_id(), Step(request.step()), layer));
  const int64_t size = reader->entry().size_bytes;
  if (request.offset() < 0 || request.offset() > size) {
    return absl::InvalidArgumentError(
        absl::StrCat("offset is ", request.offset(), "; the range is 0 to ", size));
  }
  const absl::Status gone = absl::CancelledError("the caller went away");
  v1::GetLayerResponse response;
  EncodeLayer(layer, reader->entry(), *response.mutable_header());
  if (!writer.Write(response)) return gone;
  std::string buffer(kSendChunkBytes, '\0');
  for (int64_t position = 0;;) {
    SP_ASSIGN_OR_RETURN(const size_t count, reader->Read(buffer.data(), buffer.size()));
    if (count == 0) return absl::OkStatus();
    // What the caller has already is read all the same: the digest is of all bytes.
    const int64_t skipped =
        std::clamp<int64_t>(request.offset() - position, 0, static_cast<int64_t>(count));
    if (skipped < static_cast<int64_t>(count)) {
      response.mutable_chunk()->set_offset(position + skipped);
      response.mutable_chunk()->set_data(buffer.data() + skipped, count - skipped);
      if (!writer.Write(response)) return gone;
    }
    position += static_cast<int64_t>(count);
  }
}

grpc::Status ParameterServiceImpl::GetLayer(grpc::ServerContext*,
                                            const v1::GetLayerRequest* request,
                                            grpc::ServerWriter<v1::GetLayerResponse>* writer) {
  const absl::Status status = Get(*request, *writer);
  if (absl::IsDataLoss(status)) LogError(status.message());
  return ToGrpcStatus(status);
}

// ---- Checkpoints --------------------------------------------------------------------------------

grpc::Status ParameterServiceImpl::GetCheckpoint(grpc::ServerContext*,
                                                 const v1::GetCheckpointRequest* request,
                                                 v1::GetCheckpointResponse* response) {
  std::optional<Step> step;
  if (request->has_step()) step = Step(request->step());
  const auto found = store_->GetCheckpoint(request->run_id(), step);
  if (!found.ok()) return ToGrpcStatus(found.status());
  Encode(found->first, *response->mutable_checkpoint());
  for (const auto& [layer, entry] : found->second.layers) {
    EncodeLayer(layer, entry, *response->add_layers());
  }
  return grpc::Status::OK;
}

grpc::Status ParameterServiceImpl::ListCheckpoints(grpc::ServerContext*,
                                                   const v1::ListCheckpointsRequest* request,
                                                   v1::ListCheckpointsResponse* response) {
  if (request->page_size() < 0 || request->page_size() > limits::kCheckpointPageMax) {
    return ToGrpcStatus(absl::InvalidArgumentError(
        absl::StrCat("page_size is ", request->page_size(), "; the range is 1 to ",
                     limits::kCheckpointPageMax, " (0 = ", kPageDefault, ")")));
  }
  const size_t page_size = request->page_size() == 0 ? kPageDefault : request->page_size();
  const auto after = DecodePageToken(request->page_token());
  if (!after.ok()) return ToGrpcStatus(after.status());
  const std::vector<CheckpointInfo> infos =
      store_->ListCheckpoints(request->run_id(), *after, page_size + 1);
  for (size_t i = 0; i < std::min(infos.size(), page_size); ++i) {
    Encode(infos[i], *response->add_checkpoints());
  }
  if (infos.size() > page_size) {
    const CheckpointInfo& last = infos[page_size - 1];
    response->set_next_page_token(absl::StrCat(last.run, "/", last.step.value()));
  }
  return grpc::Status::OK;
}

grpc::Status ParameterServiceImpl::PinCheckpoint(grpc::ServerContext*,
                                                 const v1::PinCheckpointRequest* request,
                                                 v1::PinCheckpointResponse*) {
  return ToGrpcStatus(
      store_->Pin(request->run_id(), Step(request->step()), Generation(request->generation())));
}

grpc::Status ParameterServiceImpl::UnpinCheckpoint(grpc::ServerContext*,
                                                   const v1::UnpinCheckpointRequest* request,
                                                   v1::UnpinCheckpointResponse*) {
  return ToGrpcStatus(
      store_->Unpin(request->run_id(), Step(request->step()), Generation(request->generation())));
}

grpc::Status ParameterServiceImpl::DeleteCheckpoint(grpc::ServerContext*,
                                                    const v1::DeleteCheckpointRequest* request,
                                                    v1::DeleteCheckpointResponse*) {
  return ToGrpcStatus(
      store_->Delete(request->run_id(), Step(request->step()), Generation(request->generation())));
}

grpc::Status ParameterServiceImpl::CollectGarbage(grpc::ServerContext*,
                                                  const v1::CollectGarbageRequest*,
                                                  v1::CollectGarbageResponse* response) {
  const absl::StatusOr<GarbageCollected> collected = store_->CollectGarbage();
  if (!collected.ok()) return ToGrpcStatus(collected.status());
  LogInfo("collected ", collected->num_blobs, " contents, ", collected->freed_bytes, " bytes");
  response->set_num_blobs(collected->num_blobs);
  response->set_freed_bytes(collected->freed_bytes);
  return grpc::Status::OK;
}

grpc::Status ParameterServiceImpl::GetUsage(grpc::ServerContext*, const v1::GetUsageRequest*,
                                            v1::GetUsageResponse* response) {
  const StoreUsage usage = store_->Usage();
  response->set_quota_bytes(usage.quota_bytes);
  response->set_stored_bytes(usage.stored_bytes);
  response->set_reserved_bytes(usage.reserved_bytes);
  response->set_num_blobs(usage.num_blobs);
  response->set_num_checkpoints(usage.num_checkpoints);
  response->set_num_damaged_blobs(usage.num_damaged_blobs);
  return grpc::Status::OK;
}

}  // namespace smartpipe
