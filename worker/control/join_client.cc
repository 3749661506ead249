#include "worker/control/join_client.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "services/base/status_macros.h"
#include "services/rpc/status.h"

namespace smartpipe {
namespace {

constexpr absl::Duration kFirstWait = absl::Milliseconds(50);
constexpr absl::Duration kLongestWait = absl::Seconds(1);

bool IsRefusal(const absl::Status& status) {
  return absl::IsAlreadyExists(status) || absl::IsInvalidArgument(status) ||
         absl::IsFailedPrecondition(status) || absl::IsResourceExhausted(status) ||
         absl::IsUnimplemented(status) || absl::IsPermissionDenied(status) ||
         absl::IsUnauthenticated(status);
}

}  // namespace

JoinClient::JoinClient(std::shared_ptr<grpc::Channel> channel, Callbacks callbacks)
    : stub_(v1::FreezeService::NewStub(std::move(channel))), callbacks_(std::move(callbacks)) {}

void JoinClient::Start() {
  thread_ = std::thread([this] { Work(); });
}

JoinClient::~JoinClient() {
  Stop();
  thread_.join();
}

void JoinClient::Stop() {
  absl::MutexLock lock(&mutex_);
  stopped_ = true;
  if (context_ != nullptr) context_->TryCancel();
}

absl::Status JoinClient::ReadStream(bool* heard) {
  grpc::ClientContext context;
  {
    absl::MutexLock lock(&mutex_);
    if (stopped_) return absl::CancelledError("stopped");
    context_ = &context;
  }
  const std::unique_ptr<grpc::ClientReader<v1::JoinResponse>> stream =
      stub_->Join(&context, callbacks_.request());
  v1::JoinResponse message;
  absl::Status handled;
  while (handled.ok() && stream->Read(&message)) {
    *heard = true;
    handled = callbacks_.on_message(message);
  }
  if (!handled.ok()) context.TryCancel();
  const absl::Status ended = FromGrpcStatus(stream->Finish());
  absl::MutexLock lock(&mutex_);
  context_ = nullptr;
  if (stopped_) return absl::CancelledError("stopped");
  if (!handled.ok()) return Annotate(absl::InternalError(handled.message()), "the freeze service");
  if (IsRefusal(ended)) return Annotate(ended, "the freeze service refused this worker");
  return absl::UnavailableError(ended.ok() ? "it closed the stream" : ended.message());
}

void JoinClient::Work() {
  absl::Time give_up = absl::Now() + callbacks_.patience();
  absl::Duration wait = kFirstWait;
  while (true) {
    bool heard = false;
    const absl::Status ended = ReadStream(&heard);
    const absl::Time now = absl::Now();
    if (heard) {
      give_up = now + callbacks_.patience();
      wait = kFirstWait;
    }
    if (!absl::IsUnavailable(ended) || now >= give_up) return callbacks_.on_end(ended);
    if (heard) callbacks_.on_break(std::string(ended.message()));
    absl::MutexLock lock(&mutex_);
    mutex_.AwaitWithTimeout(absl::Condition(&stopped_), wait);
    wait = std::min(2 * wait, kLongestWait);
  }
}

}  // namespace smartpipe
