// A file system on which operation number N fails, or is the last one before a power cut.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "services/parameter_service/file_operations.h"

namespace smartpipe::testutil {

/// What a power cut takes of that which was not synced.
enum class PowerCut {
  kKeepsAll,        // as kill -9: the kernel writes everything out
  kTakesUnsynced,   // bytes and names that were not synced are gone
  kTakesBytesOnly,  // names are there, bytes behind the last sync are not
};

/// Real files, with a count of the operations that change something. Operation `fails_at` (from 0)
/// fails, a write after half of its bytes; so does every later one when `dies`. -1 = none.
/// Threads: one.
class FaultyFiles final : public FileOperations {
 public:
  explicit FaultyFiles(int64_t fails_at = -1, bool dies = true,
                       absl::Status error = absl::ResourceExhaustedError("disk full"))
      : fails_at_(fails_at), dies_(dies), error_(std::move(error)) {}

  /// Of the operations from now on, number `count` (from 0) fails.
  void FailAfter(int64_t count) { fails_at_ = num_operations_ + count; }
  bool failed() const { return fails_at_ >= 0 && num_operations_ > fails_at_; }
  /// After the store is gone: leaves on the disk what the power cut leaves.
  void Cut(PowerCut kind);

  absl::Status MakeFolder(const std::string& path) override;
  absl::StatusOr<std::unique_ptr<WritableFile>> Create(const std::string& path) override;
  absl::StatusOr<std::unique_ptr<ReadableFile>> Open(const std::string& path) override;
  absl::Status Rename(const std::string& from, const std::string& to) override;
  absl::Status Remove(const std::string& path) override;
  absl::Status SyncFolder(const std::string& path) override;
  absl::StatusOr<std::vector<std::string>> List(const std::string& path) override;

 private:
  friend class FaultyFile;
  struct Change {  // a name that is not durable yet
    std::string path;
    bool existed = false;
    std::string old_text;  // what a power cut may bring back
  };

  /// Counts one operation; false = it must not happen.
  bool Step();
  void Remember(const std::string& path);

  int64_t fails_at_;
  const bool dies_;
  const absl::Status error_;
  int64_t num_operations_ = 0;
  std::vector<Change> changes_;                // in order
  std::map<std::string, int64_t> num_synced_;  // [path] bytes; of files written through here
};

}  // namespace smartpipe::testutil
