#include "services/parameter_service/file_operations.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>

#include "absl/strings/str_cat.h"
#include "services/base/status_macros.h"

namespace smartpipe {
namespace {

constexpr mode_t kFileMode = 0644;
constexpr mode_t kFolderMode = 0755;

absl::Status Failed(int error, absl::string_view what, const std::string& path) {
  const absl::Status status = absl::ErrnoToStatus(error, absl::StrCat("cannot ", what, " ", path));
  if (error != ENOSPC && error != EDQUOT) return status;
  return absl::ResourceExhaustedError(
      absl::StrCat(status.message(),
                   "; free space on that disk, or delete old checkpoints and collect the garbage"));
}

class SystemWritableFile final : public WritableFile {
 public:
  SystemWritableFile(int fd, std::string path) : fd_(fd), path_(std::move(path)) {}
  ~SystemWritableFile() override { close(fd_); }

  absl::Status Append(absl::string_view bytes) override {
    while (!bytes.empty()) {
      const ssize_t written = write(fd_, bytes.data(), bytes.size());
      if (written >= 0) {
        bytes.remove_prefix(static_cast<size_t>(written));
      } else if (errno != EINTR) {
        return Failed(errno, "write to", path_);
      }
    }
    return absl::OkStatus();
  }

  absl::Status Sync() override {
    return fsync(fd_) == 0 ? absl::OkStatus() : Failed(errno, "sync", path_);
  }

 private:
  const int fd_;
  const std::string path_;
};

class SystemReadableFile final : public ReadableFile {
 public:
  SystemReadableFile(int fd, int64_t size_bytes, std::string path)
      : fd_(fd), size_bytes_(size_bytes), path_(std::move(path)) {}
  ~SystemReadableFile() override { close(fd_); }

  int64_t size_bytes() const override { return size_bytes_; }

  absl::StatusOr<size_t> Read(char* buffer, size_t count) override {
    while (true) {
      const ssize_t num_read = read(fd_, buffer, count);
      if (num_read >= 0) return static_cast<size_t>(num_read);
      if (errno != EINTR) return Failed(errno, "read", path_);
    }
  }

 private:
  const int fd_;
  const int64_t size_bytes_;
  const std::string path_;
};

class SystemFileOperations final : public FileOperations {
 public:
  absl::Status MakeFolder(const std::string& path) override {
    if (mkdir(path.c_str(), kFolderMode) == 0 || errno == EEXIST) return absl::OkStatus();
    return Failed(errno, "make the folder", path);
  }

  absl::StatusOr<std::unique_ptr<WritableFile>> Create(const std::string& path) override {
    const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, kFileMode);
    if (fd < 0) return Failed(errno, "create", path);
    return std::make_unique<SystemWritableFile>(fd, path);
  }

  absl::StatusOr<std::unique_ptr<ReadableFile>> Open(const std::string& path) override {
    const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) return Failed(errno, "open", path);
    struct stat info;
    if (fstat(fd, &info) != 0) {
      const int error = errno;
      close(fd);
      return Failed(error, "read the size of", path);
    }
    return std::make_unique<SystemReadableFile>(fd, info.st_size, path);
  }

  absl::Status Rename(const std::string& from, const std::string& to) override {
    return rename(from.c_str(), to.c_str()) == 0 ? absl::OkStatus()
                                                 : Failed(errno, "rename to", to);
  }

  absl::Status Remove(const std::string& path) override {
    return remove(path.c_str()) == 0 ? absl::OkStatus() : Failed(errno, "remove", path);
  }

  absl::Status SyncFolder(const std::string& path) override {
    const int fd = open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return Failed(errno, "open the folder", path);
    const int error = fsync(fd) == 0 ? 0 : errno;
    close(fd);
    return error == 0 ? absl::OkStatus() : Failed(error, "sync the folder", path);
  }

  absl::StatusOr<std::vector<std::string>> List(const std::string& path) override {
    DIR* folder = opendir(path.c_str());
    if (folder == nullptr) return Failed(errno, "list", path);
    std::vector<std::string> names;
    errno = 0;
    while (const dirent* entry = readdir(folder)) {
      const std::string name = entry->d_name;
      if (name != "." && name != "..") names.push_back(name);
    }
    const int error = errno;
    closedir(folder);
    if (error != 0) return Failed(error, "list", path);
    std::sort(names.begin(), names.end());
    return names;
  }
};

}  // namespace

FileOperations& SystemFiles() {
  static SystemFileOperations files;
  return files;
}

absl::StatusOr<std::string> ReadWhole(FileOperations& files, const std::string& path,
                                      int64_t bytes_max) {
  SP_ASSIGN_OR_RETURN(std::unique_ptr<ReadableFile> file, files.Open(path));
  if (file->size_bytes() > bytes_max) {
    return absl::DataLossError(
        absl::StrCat(path, " has ", file->size_bytes(), " bytes, which no file of its kind has"));
  }
  std::string text(static_cast<size_t>(file->size_bytes()), '\0');
  size_t held = 0;
  while (held < text.size()) {
    SP_ASSIGN_OR_RETURN(const size_t count, file->Read(text.data() + held, text.size() - held));
    if (count == 0) break;
    held += count;
  }
  text.resize(held);
  return text;
}

absl::Status WriteDurably(FileOperations& files, const std::string& folder, const std::string& name,
                          const std::string& text) {
  const std::string temporary = absl::StrCat(folder, "/", name, ".tmp");
  absl::Status status;
  {
    SP_ASSIGN_OR_RETURN(std::unique_ptr<WritableFile> file, files.Create(temporary));
    status = file->Append(text);
    if (status.ok()) status = file->Sync();
  }
  if (status.ok()) status = files.Rename(temporary, absl::StrCat(folder, "/", name));
  if (!status.ok()) {
    files.Remove(temporary).IgnoreError();
    return status;
  }
  return files.SyncFolder(folder);
}

absl::Status MakeFolderDurably(FileOperations& files, const std::string& parent,
                               const std::string& name) {
  SP_RETURN_IF_ERROR(files.MakeFolder(absl::StrCat(parent, "/", name)));
  return files.SyncFolder(parent);
}

}  // namespace smartpipe
