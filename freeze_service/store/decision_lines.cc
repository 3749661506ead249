#include "freeze_service/store/decision_lines.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "freeze_service/store/decision_store.h"
#include "services/base/status_macros.h"

namespace smartpipe {
namespace {

constexpr mode_t kFileMode = 0644;

absl::Status FileError(absl::string_view what, const std::string& path) {
  return absl::ErrnoToStatus(errno, absl::StrCat("cannot ", what, " ", path));
}

// Sequence of a line that DecisionJson wrote; -1 for another.
int64_t SequenceOf(absl::string_view line) {
  int64_t sequence = -1;
  if (!absl::ConsumePrefix(&line, R"({"sequence":)")) return -1;
  const absl::string_view digits = line.substr(0, line.find(','));
  return absl::SimpleAtoi(digits, &sequence) ? sequence : -1;
}

// Begin of the last line of a text that ends with a newline.
size_t LastLine(absl::string_view lines) {
  const size_t newline = lines.substr(0, lines.size() - 1).rfind('\n');
  return newline == absl::string_view::npos ? 0 : newline + 1;
}

}  // namespace

absl::StatusOr<std::unique_ptr<DecisionLines>> DecisionLines::Open(const std::string& path) {
  const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, kFileMode);
  if (fd < 0) return FileError("open", path);
  std::unique_ptr<DecisionLines> lines(new DecisionLines(fd, path));
  SP_ASSIGN_OR_RETURN(const std::string text, lines->ReadAll());
  const absl::string_view whole = absl::string_view(text).substr(0, text.rfind('\n') + 1);
  if (!whole.empty()) lines->last_sequence_ = SequenceOf(whole.substr(LastLine(whole)));
  return lines;
}

DecisionLines::~DecisionLines() { close(fd_); }

absl::StatusOr<std::string> DecisionLines::ReadAll() const {
  struct stat info;
  if (fstat(fd_, &info) != 0) return FileError("read the size of", path_);
  if (!S_ISREG(info.st_mode)) return "";
  std::string text(static_cast<size_t>(info.st_size), '\0');
  for (size_t done = 0; done < text.size();) {
    const ssize_t count = pread(fd_, text.data() + done, text.size() - done, done);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return FileError("read", path_);
    if (count == 0) text.resize(done);
    done += static_cast<size_t>(count);
  }
  return text;
}

absl::Status DecisionLines::CutFrom(int64_t sequence) {
  SP_ASSIGN_OR_RETURN(const std::string text, ReadAll());
  absl::string_view kept = absl::string_view(text).substr(0, text.rfind('\n') + 1);
  while (!kept.empty()) {
    const size_t last_line = LastLine(kept);
    const int64_t last_sequence = SequenceOf(kept.substr(last_line));
    if (0 <= last_sequence && last_sequence < sequence) break;
    kept.remove_suffix(kept.size() - last_line);
  }
  if (kept.size() < text.size() && ftruncate(fd_, static_cast<off_t>(kept.size())) != 0)
    return FileError("shorten", path_);
  last_sequence_ = std::min(last_sequence_, sequence - 1);
  return absl::OkStatus();
}

absl::Status DecisionLines::Append(const EventRecord& record) {
  std::string lines;
  for (const Decision& decision : record.decisions) {
    absl::StrAppend(&lines, DecisionJson(record.sequence, record.now, decision), "\n");
  }
  for (absl::string_view rest = lines; !rest.empty();) {
    const ssize_t written = write(fd_, rest.data(), rest.size());
    if (written < 0 && errno != EINTR) return FileError("write to", path_);
    if (written > 0) rest.remove_prefix(static_cast<size_t>(written));
  }
  if (!lines.empty()) last_sequence_ = record.sequence;
  return absl::OkStatus();
}

}  // namespace smartpipe
