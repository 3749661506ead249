#include "services/parameter_service/client.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/base/limits.h"
#include "services/base/status_macros.h"
#include "services/rpc/channel.h"
#include "services/rpc/status.h"

namespace smartpipe {
namespace {

constexpr int64_t kReserveBytesMax = int64_t{1} << 30;

constexpr int32_t kPageSize = 1000;

v1::PutLayerHeader MakeHeader(const LayerPlace& place, const ContentDigest& digest,
                              int64_t size_bytes) {
  v1::PutLayerHeader header;
  header.set_run_id(place.run);
  header.set_generation(place.generation.value());
  header.set_step(place.step.value());
  header.set_layer(place.layer.value());
  header.set_num_layers(place.num_layers);
  header.set_name(place.name);
  header.set_sha256(digest.hex());
  header.set_size_bytes(size_bytes);
  return header;
}

std::string NameOf(absl::string_view call, const std::string& run, Step step, LayerIndex layer) {
  return absl::StrCat(call, " layer ", layer.value(), " of step ", step.value(), " of run \"", run,
                      "\"");
}

}  // namespace

/// Counts attempts in a row that brought nothing forward, and waits between them.
class ParameterClient::Retry {
 public:
  explicit Retry(const ParameterClientOptions& options)
      : options_(options), wait_(options.first_wait) {}

  /// True when the call should be made again: it failed by UNAVAILABLE, and not too often.
  bool Again(const absl::Status& status) {
    if (!absl::IsUnavailable(status)) return false;
    if (++num_failed_ >= options_.attempts_max) return false;
    options_.sleep(wait_);
    wait_ = std::min(options_.wait_max, 2 * wait_);
    return true;
  }
  void Progressed() {
    num_failed_ = 0;
    wait_ = options_.first_wait;
  }
  absl::Status GaveUp(const absl::Status& status, absl::string_view what) const {
    if (!absl::IsUnavailable(status)) return Annotate(status, what);
    return Annotate(status, absl::StrCat(what, " failed ", num_failed_, " times, the last time"));
  }

 private:
  const ParameterClientOptions& options_;
  int num_failed_ = 0;
  absl::Duration wait_;
};

/// The context of one attempt; Cancel ends it.
class ParameterClient::Attempt {
 public:
  explicit Attempt(ParameterClient* client) : client_(client) {
    SetTimeout(context_, client_->options_.call_timeout);
    absl::MutexLock lock(&client_->mutex_);
    client_->attempts_.insert(&context_);
    if (client_->cancelled_) context_.TryCancel();
  }
  ~Attempt() {
    absl::MutexLock lock(&client_->mutex_);
    client_->attempts_.erase(&context_);
  }
  Attempt(const Attempt&) = delete;
  Attempt& operator=(const Attempt&) = delete;
  grpc::ClientContext& context() { return context_; }

 private:
  ParameterClient* const client_;
  grpc::ClientContext context_;
};

ParameterClient::ParameterClient(ParameterClientOptions options)
    : options_(std::move(options)), stub_(v1::ParameterService::NewStub(options_.channel)) {}

void ParameterClient::Cancel() {
  absl::MutexLock lock(&mutex_);
  cancelled_ = true;
  for (grpc::ClientContext* context : attempts_) context->TryCancel();
}

// ---- Put ----------------------------------------------------------------------------------------

// One call: the header, and the bytes from `offset` on if there is one.
absl::StatusOr<v1::PutLayerResponse> ParameterClient::Send(const v1::PutLayerHeader& header,
                                                           absl::string_view bytes,
                                                           std::optional<int64_t> offset,
                                                           int64_t* bytes_sent) {
  Attempt attempt(this);
  v1::PutLayerResponse response;
  const std::unique_ptr<grpc::ClientWriter<v1::PutLayerRequest>> writer =
      stub_->PutLayer(&attempt.context(), &response);
  v1::PutLayerRequest request;
  *request.mutable_header() = header;
  bool open = writer->Write(request);
  const auto size = static_cast<int64_t>(bytes.size());
  // The service may end the call at any time; its status says why.
  for (int64_t next = offset.value_or(size); open && next < size;) {
    const absl::string_view data = bytes.substr(next, options_.chunk_bytes);
    request.mutable_chunk()->set_offset(next);
    request.mutable_chunk()->set_data(data.data(), data.size());
    open = writer->Write(request);
    if (open) *bytes_sent += static_cast<int64_t>(data.size());
    next += static_cast<int64_t>(data.size());
  }
  if (open) writer->WritesDone();
  SP_RETURN_IF_ERROR(FromGrpcStatus(writer->Finish()));
  return response;
}

absl::StatusOr<PutOutcome> ParameterClient::Put(const v1::PutLayerHeader& header,
                                                std::optional<absl::string_view> bytes) {
  const std::string name =
      NameOf("putting", header.run_id(), Step(header.step()), LayerIndex(header.layer()));
  PutOutcome outcome;
  Retry retry(options_);
  std::optional<int64_t> offset;  // none: only ask
  int64_t most_held = 0;
  while (true) {
    absl::StatusOr<v1::PutLayerResponse> response =
        Send(header, bytes.value_or(""), offset, &outcome.bytes_sent);
    if (response.ok() && response->complete()) {
      outcome.already_there =
          !bytes.has_value() || (outcome.bytes_sent == 0 && response->already_there());
      outcome.checkpoint_complete = response->checkpoint_complete();
      return outcome;
    }
    const bool asked = !offset.has_value();
    offset.reset();
    if (response.ok() && !bytes.has_value()) {
      return absl::NotFoundError(
          absl::StrCat(name, ": the store no longer has the content that it had"));
    }
    if (response.ok()) {
      const int64_t held = response->bytes_held();
      if (held < 0 || held > header.size_bytes()) {
        return absl::InternalError(absl::StrCat("the service says that it holds ", held, " of ",
                                                header.size_bytes(), " bytes"));
      }
      if (held > most_held) retry.Progressed();
      most_held = std::max(most_held, held);
      offset = held;
      if (asked) continue;
    }
    const absl::Status status =
        response.ok() ? absl::UnavailableError("the upload was cut short") : response.status();
    if (!retry.Again(status)) return retry.GaveUp(status, name);
  }
}

absl::StatusOr<PutOutcome> ParameterClient::PutLayer(const LayerPlace& place,
                                                     absl::string_view bytes,
                                                     std::optional<ContentDigest> digest) {
  return Put(MakeHeader(place, digest.has_value() ? *digest : DigestOf(bytes),
                        static_cast<int64_t>(bytes.size())),
             bytes);
}

absl::StatusOr<PutOutcome> ParameterClient::PutStoredLayer(const LayerPlace& place,
                                                           const ContentDigest& digest,
                                                           int64_t size_bytes) {
  return Put(MakeHeader(place, digest, size_bytes), std::nullopt);
}

// ---- Get ----------------------------------------------------------------------------------------

struct ParameterClient::Received {
  std::string sha256;
  int64_t size_bytes = 0;
  std::string bytes;
};

// One call that adds to `received`. OK: all bytes are there.
absl::Status ParameterClient::Receive(const v1::GetLayerRequest& request, int64_t size_bytes_max,
                                      Received& received) {
  Attempt attempt(this);
  const std::unique_ptr<grpc::ClientReader<v1::GetLayerResponse>> reader =
      stub_->GetLayer(&attempt.context(), request);
  v1::GetLayerResponse response;
  absl::Status problem;
  while (problem.ok() && reader->Read(&response)) {
    if (response.has_header()) {
      const v1::StoredLayer& header = response.header();
      const bool is_other = !received.sha256.empty() && received.sha256 != header.sha256();
      received.sha256 = header.sha256();
      received.size_bytes = header.size_bytes();
      if (is_other) {
        received.bytes.clear();
        problem = absl::UnavailableError("the layer was replaced while it was read");
      } else if (header.size_bytes() > size_bytes_max) {
        problem = absl::ResourceExhaustedError(absl::StrCat("the layer has ", header.size_bytes(),
                                                            " bytes, more than ", size_bytes_max));
      } else {
        received.bytes.reserve(std::clamp<int64_t>(header.size_bytes(), 0, kReserveBytesMax));
      }
    } else if (response.chunk().offset() != static_cast<int64_t>(received.bytes.size()) ||
               static_cast<int64_t>(response.chunk().data().size()) >
                   received.size_bytes - response.chunk().offset()) {
      problem = absl::UnavailableError("a chunk came out of its order");
    } else {
      received.bytes += response.chunk().data();
    }
  }
  if (!problem.ok()) attempt.context().TryCancel();
  const absl::Status status = FromGrpcStatus(reader->Finish());
  SP_RETURN_IF_ERROR(problem);
  SP_RETURN_IF_ERROR(status);
  if (static_cast<int64_t>(received.bytes.size()) == received.size_bytes &&
      DigestOf(received.bytes).hex() == received.sha256) {
    return absl::OkStatus();
  }
  received.bytes.clear();
  return absl::UnavailableError("the bytes that came are not those that were sent");
}

absl::StatusOr<std::string> ParameterClient::GetLayer(const std::string& run, Step step,
                                                      LayerIndex layer, int64_t size_bytes_max) {
  v1::GetLayerRequest request;
  request.set_run_id(run);
  request.set_step(step.value());
  request.set_layer(layer.value());
  Received received;
  Retry retry(options_);
  while (true) {
    const auto before = static_cast<int64_t>(received.bytes.size());
    request.set_offset(before);
    const absl::Status status = Receive(request, size_bytes_max, received);
    if (status.ok()) return std::move(received.bytes);
    if (static_cast<int64_t>(received.bytes.size()) > before) retry.Progressed();
    if (!retry.Again(status)) {
      return retry.GaveUp(status, NameOf("getting", run, step, layer));
    }
  }
}

// ---- Checkpoints --------------------------------------------------------------------------------

template <typename Method, typename Request, typename Response>
absl::Status ParameterClient::Call(Method method, const Request& request, Response* response) {
  Retry retry(options_);
  while (true) {
    Attempt attempt(this);
    const absl::Status status =
        FromGrpcStatus((stub_.get()->*method)(&attempt.context(), request, response));
    if (status.ok()) return status;
    if (!retry.Again(status)) {
      return retry.GaveUp(status, "the call of the parameter service");
    }
  }
}

absl::StatusOr<StoredCheckpoint> ParameterClient::GetCheckpoint(const std::string& run,
                                                                std::optional<Step> step) {
  v1::GetCheckpointRequest request;
  request.set_run_id(run);
  if (step.has_value()) request.set_step(step->value());
  v1::GetCheckpointResponse response;
  SP_RETURN_IF_ERROR(Call(&v1::ParameterService::Stub::GetCheckpoint, request, &response));
  return StoredCheckpoint{.step = Step(response.checkpoint().step()),
                          .generation = Generation(response.checkpoint().generation()),
                          .layers = {response.layers().begin(), response.layers().end()}};
}

absl::Status ParameterClient::DeleteCheckpoint(const std::string& run, Step step,
                                               Generation generation) {
  v1::DeleteCheckpointRequest request;
  request.set_run_id(run);
  request.set_step(step.value());
  request.set_generation(generation.value());
  v1::DeleteCheckpointResponse response;
  return Call(&v1::ParameterService::Stub::DeleteCheckpoint, request, &response);
}

absl::StatusOr<std::vector<v1::Checkpoint>> ParameterClient::ListCheckpoints(
    const std::string& run) {
  v1::ListCheckpointsRequest request;
  request.set_run_id(run);
  request.set_page_size(kPageSize);
  std::vector<v1::Checkpoint> checkpoints;
  do {
    v1::ListCheckpointsResponse page;
    SP_RETURN_IF_ERROR(Call(&v1::ParameterService::Stub::ListCheckpoints, request, &page));
    checkpoints.insert(checkpoints.end(), page.checkpoints().begin(), page.checkpoints().end());
    request.set_page_token(page.next_page_token());
  } while (!request.page_token().empty());
  return checkpoints;
}

absl::StatusOr<int64_t> ParameterClient::CollectGarbage() {
  v1::CollectGarbageResponse response;
  SP_RETURN_IF_ERROR(
      Call(&v1::ParameterService::Stub::CollectGarbage, v1::CollectGarbageRequest(), &response));
  return response.freed_bytes();
}

}  // namespace smartpipe
