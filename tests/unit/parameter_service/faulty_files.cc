#include "tests/unit/parameter_service/faulty_files.h"

#include <algorithm>
#include <filesystem>
#include <system_error>

#include "tests/testutil/process.h"

namespace smartpipe::testutil {
namespace {

namespace fs = std::filesystem;

}  // namespace

class FaultyFile final : public WritableFile {
 public:
  FaultyFile(FaultyFiles* files, std::string path, std::unique_ptr<WritableFile> file)
      : files_(files), path_(std::move(path)), file_(std::move(file)) {}

  absl::Status Append(absl::string_view bytes) override {
    const bool fails_now = files_->num_operations_ == files_->fails_at_;
    if (files_->Step()) {
      num_written_ += static_cast<int64_t>(bytes.size());
      return file_->Append(bytes);
    }
    if (fails_now) file_->Append(bytes.substr(0, bytes.size() / 2)).IgnoreError();
    return files_->error_;
  }

  absl::Status Sync() override {
    if (!files_->Step()) return files_->error_;
    files_->num_synced_[path_] = num_written_;
    return file_->Sync();
  }

 private:
  FaultyFiles* const files_;
  const std::string path_;
  const std::unique_ptr<WritableFile> file_;
  int64_t num_written_ = 0;
};

bool FaultyFiles::Step() {
  const int64_t number = num_operations_++;
  return fails_at_ < 0 || number < fails_at_ || (!dies_ && number > fails_at_);
}

void FaultyFiles::Remember(const std::string& path) {
  const bool is_file = fs::is_regular_file(path);
  changes_.push_back({path, is_file, is_file ? ReadFile(path) : ""});
}

absl::Status FaultyFiles::MakeFolder(const std::string& path) {
  return Step() ? SystemFiles().MakeFolder(path) : error_;
}

absl::StatusOr<std::unique_ptr<WritableFile>> FaultyFiles::Create(const std::string& path) {
  if (!Step()) return error_;
  Remember(path);
  absl::StatusOr<std::unique_ptr<WritableFile>> file = SystemFiles().Create(path);
  if (!file.ok()) return file.status();
  num_synced_[path] = 0;
  return std::make_unique<FaultyFile>(this, path, *std::move(file));
}

absl::StatusOr<std::unique_ptr<ReadableFile>> FaultyFiles::Open(const std::string& path) {
  return SystemFiles().Open(path);
}

absl::Status FaultyFiles::Rename(const std::string& from, const std::string& to) {
  if (!Step()) return error_;
  Remember(to);
  num_synced_[to] = num_synced_[from];
  num_synced_.erase(from);
  return SystemFiles().Rename(from, to);
}

absl::Status FaultyFiles::Remove(const std::string& path) {
  if (!Step()) return error_;
  if (fs::is_regular_file(path)) Remember(path);
  return SystemFiles().Remove(path);
}

absl::Status FaultyFiles::SyncFolder(const std::string& path) {
  if (!Step()) return error_;
  std::erase_if(changes_, [&](const Change& change) {
    const fs::path folder = fs::path(change.path).parent_path();
    // With the removal of a folder those of its files are durable, too.
    return folder == path || (folder.parent_path() == path && !fs::exists(folder));
  });
  return SystemFiles().SyncFolder(path);
}

absl::StatusOr<std::vector<std::string>> FaultyFiles::List(const std::string& path) {
  return SystemFiles().List(path);
}

void FaultyFiles::Cut(PowerCut kind) {
  if (kind == PowerCut::kKeepsAll) return;
  for (const auto& [path, num_bytes] : num_synced_) {
    std::error_code gone;
    const auto size = static_cast<int64_t>(fs::file_size(path, gone));
    if (!gone && size > num_bytes) fs::resize_file(path, num_bytes);
  }
  if (kind == PowerCut::kTakesBytesOnly) return;
  std::reverse(changes_.begin(), changes_.end());
  for (const Change& change : changes_) {
    if (change.existed) {
      fs::create_directories(fs::path(change.path).parent_path());
      WriteFile(change.path, change.old_text);
    } else {
      fs::remove(change.path);
    }
  }
}

}  // namespace smartpipe::testutil
