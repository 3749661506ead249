#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "freeze_service/store/decision_store.h"
#include "services/base/status_macros.h"

namespace smartpipe {
namespace {

constexpr mode_t kFileMode = 0644;

absl::Status FileError(int error, absl::string_view what, const std::string& path) {
  return absl::ErrnoToStatus(error, absl::StrCat("cannot ", what, " ", path));
}

class MemoryDecisionStore final : public DecisionStore {
 public:
  /// fd < 0: memory only.
  MemoryDecisionStore(int fd, std::string path) : fd_(fd), path_(std::move(path)) {}
  ~MemoryDecisionStore() override {
    if (fd_ >= 0) close(fd_);
  }

  absl::Status Append(const DecisionRecord& record) override {
    if (record.sequence != num_records_) {
      return absl::InvalidArgumentError(absl::StrCat(
          "decision record ", record.sequence, " cannot be stored, the next is ", num_records_));
    }
    std::string lines;
    for (const Decision& decision : record.decisions) {
      absl::StrAppend(&lines, DecisionJson(record.sequence, record.now, decision), "\n");
    }
    if (fd_ >= 0 && !lines.empty()) SP_RETURN_IF_ERROR(WriteLines(lines));
    // A long run must not grow without bound: what is in the file is not kept here as well.
    if (fd_ < 0) records_.push_back(record);
    ++num_records_;
    return absl::OkStatus();
  }

  const std::vector<DecisionRecord>& records() const override { return records_; }

 private:
  // All lines of one record, on the disk when it returns OK; after an error the file ends where it
  // ended before, as far as the system lets us.
  absl::Status WriteLines(absl::string_view lines) {
    struct stat before;
    if (fstat(fd_, &before) != 0) return FileError(errno, "read the size of", path_);
    int error = 0;
    for (absl::string_view rest = lines; !rest.empty() && error == 0;) {
      const ssize_t written = write(fd_, rest.data(), rest.size());
      if (written >= 0) {
        rest.remove_prefix(written);
      } else if (errno != EINTR) {
        error = errno;
      }
    }
    // Pipes and devices cannot be synced, which is fine.
    if (error == 0 && fdatasync(fd_) != 0 && errno != EINVAL && errno != EROFS) error = errno;
    if (error == 0) return absl::OkStatus();
    if (S_ISREG(before.st_mode) && ftruncate(fd_, before.st_size) != 0) {
      return Annotate(FileError(error, "write to", path_), "a broken last line was left behind");
    }
    return FileError(error, "write to", path_);
  }

  const int fd_;
  const std::string path_;
  int64_t num_records_ = 0;
  std::vector<DecisionRecord> records_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<DecisionStore>> MakeMemoryDecisionStore(const std::string& path) {
  int fd = -1;
  if (!path.empty()) {
    fd = open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, kFileMode);
    if (fd < 0) return FileError(errno, "open", path);
  }
  return std::make_unique<MemoryDecisionStore>(fd, path);
}

}  // namespace smartpipe
