#include "services/base/files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <system_error>

#include "absl/strings/str_cat.h"

namespace smartpipe {
namespace {

absl::Status WriteAtomically(const std::string& link_or_path, const std::string& text,
                             mode_t mode) {
  std::error_code ignored;
  const std::string path = std::filesystem::is_symlink(link_or_path, ignored)
                               ? std::filesystem::weakly_canonical(link_or_path, ignored).string()
                               : link_or_path;
  struct stat info;
  if (stat(path.c_str(), &info) == 0 && !S_ISREG(info.st_mode)) {
    return absl::FailedPreconditionError(
        absl::StrCat("cannot write ", path, ": it is there and no plain file"));
  }
  const std::string temporary = absl::StrCat(path, ".", getpid(), ".tmp");
  unlink(temporary.c_str());  // one that is left over keeps its mode
  const int fd = open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
  if (fd < 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot create ", temporary));
  size_t written = 0;
  int error = 0;
  while (error == 0 && written < text.size()) {
    const ssize_t count = write(fd, text.data() + written, text.size() - written);
    if (count >= 0) {
      written += static_cast<size_t>(count);
    } else if (errno != EINTR) {
      error = errno;
    }
  }
  if (error == 0 && fsync(fd) != 0) error = errno;
  if (close(fd) != 0 && error == 0) error = errno;
  if (error == 0 && rename(temporary.c_str(), path.c_str()) != 0) error = errno;
  if (error == 0) return absl::OkStatus();
  unlink(temporary.c_str());
  return absl::ErrnoToStatus(error, absl::StrCat("cannot write ", path));
}

}  // namespace

absl::StatusOr<std::string> ReadSmallFile(const std::string& path, int64_t bytes_max) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot open ", path));
  std::string text;
  char buffer[65'536];
  ssize_t num_read = 0;
  while ((num_read = read(fd, buffer, sizeof(buffer))) > 0) {
    text.append(buffer, static_cast<size_t>(num_read));
    if (static_cast<int64_t>(text.size()) > bytes_max) break;
  }
  const int error = errno;
  close(fd);
  if (num_read < 0 && error == EISDIR) {
    return absl::InvalidArgumentError(absl::StrCat(path, " is a folder, not a file"));
  }
  if (num_read < 0) return absl::ErrnoToStatus(error, absl::StrCat("cannot read ", path));
  if (static_cast<int64_t>(text.size()) > bytes_max) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, " has more than ", bytes_max, " bytes; is it the right file?"));
  }
  return text;
}

absl::Status WriteFileAtomically(const std::string& path, const std::string& text) {
  return WriteAtomically(path, text, 0644);
}

absl::Status WriteSecretAtomically(const std::string& path, const std::string& text) {
  return WriteAtomically(path, text, 0600);
}

}  // namespace smartpipe
