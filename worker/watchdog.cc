#include "worker/watchdog.h"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <system_error>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "services/base/files.h"
#include "services/obs/log.h"

namespace smartpipe {
namespace {

constexpr char kWord[] = "watchdog: ";

}  // namespace

Watchdog::Watchdog(const Options& options) : options_(options), thread_([this] { Watch(); }) {}

Watchdog::~Watchdog() {
  {
    absl::MutexLock lock(&mutex_);
    left_ = true;
  }
  thread_.join();
}

void Watchdog::Leaving(const absl::Status& why) {
  {
    absl::MutexLock lock(&mutex_);
    if (leaving_) return;
    leaving_ = true;
  }
  if (absl::StrContains(why.message(), kWord)) WriteDump(why);
}

void Watchdog::WriteDump(const absl::Status& why) const {
  std::error_code error;
  std::filesystem::create_directories(std::filesystem::path(options_.dump_path).parent_path(),
                                      error);
  const std::string text = absl::StrCat(absl::FormatTime(absl::Now(), absl::UTCTimeZone()), "\n",
                                        why.message(), "\n\n", options_.describe(), "\n");
  const absl::Status written = WriteFileAtomically(options_.dump_path, text);
  if (!written.ok()) LogWarning("no dump is written: ", written.message());
}

void Watchdog::Watch() {
  absl::MutexLock lock(&mutex_);
  const auto is_over = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return left_ || leaving_; };
  const bool watches = options_.patience > absl::ZeroDuration();
  const absl::Duration period = std::min(options_.patience / 8, absl::Seconds(1));
  int64_t seen = -1;
  absl::Time since = absl::Now();
  while (watches && !mutex_.AwaitWithTimeout(absl::Condition(&is_over), period)) {
    const int64_t now_at = options_.position->num_changes();
    const bool on_purpose = options_.may_stand_still && options_.may_stand_still();
    if (now_at != seen || on_purpose) {
      seen = now_at;
      since = absl::Now();
    } else if (absl::Now() - since >= options_.patience) {
      const absl::Status why = absl::DeadlineExceededError(absl::StrCat(
          kWord, "nothing has moved for ", absl::FormatDuration(options_.patience),
          " (watchdog_s) in ", options_.position->Text(), "; see ", options_.dump_path));
      mutex_.Unlock();
      LogError(why.message());
      WriteDump(why);
      options_.on_stuck(why);
      mutex_.Lock();
      break;
    }
  }
  mutex_.Await(absl::Condition(&is_over));
  if (mutex_.AwaitWithTimeout(absl::Condition(&left_), options_.leave_patience)) return;
  LogError("the compute thread does not leave the generation (", options_.position->Text(),
           "): this process is killed, so that another can take its place");
  kill(getpid(), SIGKILL);
}

}  // namespace smartpipe
