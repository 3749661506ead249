// What the layer store does to the disk, as a small interface, so that tests can let each single
// operation fail or be the last one before a power cut.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace smartpipe {

/// A file being written from its start; closed by the destructor.  Threads: one at a time.
class WritableFile {
 public:
  virtual ~WritableFile() = default;
  /// All bytes or an error; after an error the file's end is undefined.
  virtual absl::Status Append(absl::string_view bytes) = 0;
  /// Until this returned OK, a power cut may take any of the bytes.
  virtual absl::Status Sync() = 0;
};

/// A file being read from its start.  Threads: one at a time.
class ReadableFile {
 public:
  virtual ~ReadableFile() = default;
  virtual int64_t size_bytes() const = 0;  // when it was opened
  /// Up to `count` next bytes; 0 = the end.
  virtual absl::StatusOr<size_t> Read(char* buffer, size_t count) = 0;
};

/// Errors of all: the system's reason with the path; NOT_FOUND for what is not there,
/// RESOURCE_EXHAUSTED for a full disk.  Threads: any.
class FileOperations {
 public:
  virtual ~FileOperations() = default;
  /// OK also when the folder is there; its parent must be.
  virtual absl::Status MakeFolder(const std::string& path) = 0;
  /// A new file, or the old one emptied.
  virtual absl::StatusOr<std::unique_ptr<WritableFile>> Create(const std::string& path) = 0;
  virtual absl::StatusOr<std::unique_ptr<ReadableFile>> Open(const std::string& path) = 0;
  /// Replaces `to` in one step.
  virtual absl::Status Rename(const std::string& from, const std::string& to) = 0;
  /// A file or an empty folder.
  virtual absl::Status Remove(const std::string& path) = 0;
  /// Until this returned OK, a power cut may undo creations, renames and removals in the folder.
  virtual absl::Status SyncFolder(const std::string& path) = 0;
  /// Names in the folder, sorted, without "." and "..".
  virtual absl::StatusOr<std::vector<std::string>> List(const std::string& path) = 0;
};

/// The machine's file system.
FileOperations& SystemFiles();

/// The whole file. Errors: as Open and Read; DATA_LOSS when it has more than `bytes_max`.
absl::StatusOr<std::string> ReadWhole(FileOperations& files, const std::string& path,
                                      int64_t bytes_max);

/// The file `folder`/`name` holds `text`, durably, when this returns OK: temporary file
/// "NAME.tmp", sync, rename, sync of the folder. Readers never see a part. After an error the old
/// or the new text is there.
absl::Status WriteDurably(FileOperations& files, const std::string& folder, const std::string& name,
                          const std::string& text);

/// Makes `parent`/`name` and its entry in `parent` durable.
absl::Status MakeFolderDurably(FileOperations& files, const std::string& parent,
                               const std::string& name);

}  // namespace smartpipe
