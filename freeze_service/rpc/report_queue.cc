#include "freeze_service/rpc/report_queue.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "services/base/limits.h"

namespace smartpipe {

ReportQueue::ReportQueue(std::function<void(std::vector<WaitingReport>)> take)
    : take_(std::move(take)), thread_([this] { TakeLoop(); }) {}

ReportQueue::~ReportQueue() {
  {
    absl::MutexLock lock(&mutex_);
    closed_ = true;
  }
  thread_.join();
}

void ReportQueue::Push(WaitingReport report) {
  {
    absl::MutexLock lock(&mutex_);
    if (waiting_.size() < static_cast<size_t>(limits::kReportsWaitingMax)) {
      waiting_.push_back(std::move(report));
      return;
    }
  }
  report.answer(absl::ResourceExhaustedError(
      absl::StrCat(limits::kReportsWaitingMax, " reports wait already; that is the limit")));
}

void ReportQueue::TakeLoop() {
  while (true) {
    std::vector<WaitingReport> taken;
    {
      absl::MutexLock lock(&mutex_);
      mutex_.Await(absl::Condition(this, &ReportQueue::HasWork));
      if (waiting_.empty()) return;
      taken.swap(waiting_);
    }
    take_(std::move(taken));
  }
}

}  // namespace smartpipe
