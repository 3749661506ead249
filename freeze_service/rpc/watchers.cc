#include "freeze_service/rpc/watchers.h"

#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/base/limits.h"

namespace smartpipe {

WatchStream::WatchStream(absl::Duration step_period, std::function<void(WatchStream&)> on_gone)
    : MessageStream(limits::kStreamMessagesMax,
                    absl::StrCat("the watcher reads too slowly: ", limits::kStreamMessagesMax,
                                 " messages were waiting for it; watch again, with a longer "
                                 "step_period_s")),
      step_period_(step_period),
      on_gone_(std::move(on_gone)) {}

std::shared_ptr<WatchStream> WatchStream::Create(absl::Duration step_period,
                                                 std::function<void(WatchStream&)> on_gone) {
  return Own(new WatchStream(step_period, std::move(on_gone)));
}

std::shared_ptr<WatchStream> Watchers::Refuse(const grpc::Status& status) {
  std::shared_ptr<WatchStream> stream =
      WatchStream::Create(absl::ZeroDuration(), [](WatchStream&) {});
  stream->Close(status);
  return stream;
}

std::shared_ptr<WatchStream> Watchers::Add(absl::Duration step_period, v1::Run run) {
  std::shared_ptr<WatchStream> stream = WatchStream::Create(step_period, [this](WatchStream& gone) {
    absl::MutexLock lock(&mutex_);
    std::erase_if(watchers_, [&gone](const Watcher& w) { return w.stream.get() == &gone; });
  });
  v1::WatchRunResponse first;
  *first.mutable_run() = std::move(run);
  stream->Send(first);
  absl::MutexLock lock(&mutex_);
  if (watchers_.size() >= static_cast<size_t>(limits::kWatchersMax)) {
    stream->Close(grpc::Status(
        grpc::StatusCode::RESOURCE_EXHAUSTED,
        absl::StrCat(limits::kWatchersMax, " watchers are connected; that is the limit")));
  } else if (end_.has_value()) {
    v1::WatchRunResponse last;
    *last.mutable_end_of_run() = *end_;
    stream->Send(last);
    stream->Close(grpc::Status::OK);
  } else {
    watchers_.push_back({.stream = stream});
  }
  return stream;
}

void Watchers::Tell(const v1::WatchRunResponse& message) {
  absl::MutexLock lock(&mutex_);
  if (watchers_.empty()) return;
  const grpc::ByteBuffer encoded = EncodeMessage(message);
  std::erase_if(watchers_, [&](const Watcher& watcher) { return !watcher.stream->Send(encoded); });
}

void Watchers::TellStep(const v1::StepProgress& step) {
  absl::MutexLock lock(&mutex_);
  if (watchers_.empty()) return;
  v1::WatchRunResponse message;
  *message.mutable_step() = step;
  const absl::Time now = clock_->Now();
  std::erase_if(watchers_, [&](Watcher& watcher) {
    if (now < watcher.next_step) return false;
    watcher.next_step = now + watcher.stream->step_period();
    return !watcher.stream->Send(message);
  });
}

void Watchers::TellNotice(const std::string& message) {
  v1::WatchRunResponse response;
  response.mutable_notice()->set_message(message);
  Tell(response);
}

void Watchers::TellEnd(const v1::EndOfRun& end) {
  v1::WatchRunResponse message;
  *message.mutable_end_of_run() = end;
  absl::MutexLock lock(&mutex_);
  end_ = end;
  for (const Watcher& watcher : watchers_) {
    watcher.stream->Send(message);
    watcher.stream->Close(grpc::Status::OK);
  }
  watchers_.clear();
}

size_t Watchers::size() const {
  absl::MutexLock lock(&mutex_);
  return watchers_.size();
}

}  // namespace smartpipe
