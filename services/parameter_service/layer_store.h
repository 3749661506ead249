// The layer store: checkpoints on the disk, layer by layer, each content once.
//
//   FOLDER/lock                             held by the one process that serves the folder
//   FOLDER/partial/<sha256>-<size>          uploads going on; gone after a restart
//   FOLDER/blobs/<aa>/<sha256>              contents of layers; <aa> = their first two digits
//   FOLDER/runs/<run>/generation            newest generation seen
//   FOLDER/runs/<run>/manifests/<step>      complete checkpoints
//   FOLDER/runs/<run>/pending/<step>/<layer>  layers of incomplete ones
//   FOLDER/runs/<run>/pins/<step>           pinned checkpoints
//
// Order of writing: bytes to a temporary name, sync, rename, sync of the folder; then the layer's
// record; the manifest last, when all records are there. So whatever is acknowledged survives a
// power cut at any point, and a manifest never names bytes that are not there. Non-goals: deltas
// between contents, compression, more than one process on a folder.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "services/base/content_digest.h"
#include "services/base/ids.h"
#include "services/parameter_service/file_operations.h"
#include "services/parameter_service/manifest.h"

namespace smartpipe {

struct LayerStoreOptions {
  std::string folder;       // made if it is not there; its parent must be
  int64_t quota_bytes = 0;  // of contents, uploads included; 0 = no limit
  /// Reads all contents at the start and compares their digests (0.5-2 GB/s); false compares only
  /// sizes.
  bool verify = true;
};

/// One layer as a writer announces it.
struct LayerVersion {
  std::string run;  // IsRunId
  Generation generation;
  Step step;
  LayerIndex layer;
  int32_t num_layers = 0;  // of the whole checkpoint
  LayerEntry entry;
};

/// Whether `name` may be a run's: [A-Za-z0-9_-][A-Za-z0-9._-]{0,62}.
bool IsRunId(absl::string_view name);
/// The nearest name that IsRunId accepts: '_' for what it refuses, cut to 63 bytes.
std::string ToRunId(absl::string_view name);

struct PutState {
  int64_t bytes_held = 0;  // of this content, in the store
  bool complete = false;   // stored and recorded
  bool already_there = false;
  bool checkpoint_complete = false;
};

enum class CheckpointState { kIncomplete, kComplete, kDamaged };

struct CheckpointInfo {
  std::string run;
  Step step;
  Generation generation;  // 0 = its manifest cannot be read
  CheckpointState state = CheckpointState::kIncomplete;
  int32_t num_layers = 0;
  int32_t num_layers_stored = 0;
  int64_t size_bytes = 0;
  bool pinned = false;
};

struct StoreUsage {
  int64_t quota_bytes = 0;
  int64_t stored_bytes = 0;
  int64_t reserved_bytes = 0;
  int64_t num_blobs = 0;
  int64_t num_checkpoints = 0;
  int64_t num_damaged_blobs = 0;
};

struct GarbageCollected {
  int64_t num_blobs = 0;
  int64_t freed_bytes = 0;
};

class LayerStore;
struct LayerUpload;

/// One put, from its announcement to its end or its writer's.  Threads: one. Must not outlive the
/// store.
class LayerPut {
 public:
  ~LayerPut();
  LayerPut(const LayerPut&) = delete;
  LayerPut& operator=(const LayerPut&) = delete;

  const PutState& state() const { return state_; }
  /// Bytes at `offset`: what is held already is skipped; with the last byte the layer is stored and
  /// recorded, durably. Other puts of the same content may add bytes too: state() says how many are
  /// held.
  /// Errors: INVALID_ARGUMENT (a gap, beyond the size, another digest at the end),
  /// RESOURCE_EXHAUSTED (disk full), UNAVAILABLE (the upload was dropped, or pieces of several
  /// writers did not fit together: start again), FAILED_PRECONDITION (a newer generation came).
  /// After an error the layer is not recorded.
  absl::Status Append(int64_t offset, absl::string_view bytes);

 private:
  friend class LayerStore;
  LayerPut(LayerStore* store, LayerVersion version, int64_t id);

  LayerStore* const store_;
  const LayerVersion version_;
  const int64_t id_;
  std::shared_ptr<LayerUpload> upload_;  // null when the content was there
  PutState state_;
};

/// Reads one layer from its start and checks its digest at the end.  Threads: one. Must not outlive
/// the store. The bytes stay readable when the checkpoint is deleted meanwhile.
class LayerReader {
 public:
  const LayerEntry& entry() const { return entry_; }
  /// Up to `count` next bytes; 0 = the end, and all bytes were right.
  /// Errors: DATA_LOSS when the file is shorter, longer or of another digest; the store knows then.
  absl::StatusOr<size_t> Read(char* buffer, size_t count);

 private:
  friend class LayerStore;
  LayerReader() = default;
  absl::Status Damaged(absl::string_view why);

  LayerStore* store_ = nullptr;
  LayerEntry entry_;
  std::string what_;  // for messages
  int64_t blob_id_ = 0;
  int64_t bytes_read_ = 0;
  bool checked_ = false;
  absl::Status failure_;
  std::unique_ptr<ReadableFile> file_;
  ContentHasher hasher_;
};

/// Threads: all methods from any thread; uploads of different contents run side by side.
/// Cost: a put syncs its bytes, two folders and a record; lists and sweeps are linear in what they
/// look at. Memory: about 150 bytes per layer of each checkpoint.
class LayerStore {
 public:
  /// Recovers what is in the folder: removes temporary files, completes a checkpoint whose layers
  /// are all recorded, finds contents that are torn or wrong. `files` must outlive the store.
  /// Errors: UNAVAILABLE when another process serves the folder; the system's reason.
  static absl::StatusOr<std::unique_ptr<LayerStore>> Open(const LayerStoreOptions& options,
                                                          FileOperations& files = SystemFiles());
  ~LayerStore();

  /// What Open found and did, one sentence each, for the log; empty after an orderly end.
  const std::vector<std::string>& recovered() const { return recovered_; }

  /// Announces a put: raises the run's generation, and records the layer at once when its content
  /// is there. A put that is refused changes nothing.
  /// Errors: INVALID_ARGUMENT (a field out of its range; other sizes than before),
  /// FAILED_PRECONDITION (stale generation; this layer of this step and generation has another
  /// content), RESOURCE_EXHAUSTED (quota, disk, limits).
  absl::StatusOr<std::unique_ptr<LayerPut>> BeginPut(const LayerVersion& version);

  /// Errors: NOT_FOUND (run, complete checkpoint, layer), DATA_LOSS (known to be damaged).
  absl::StatusOr<std::unique_ptr<LayerReader>> OpenLayer(const std::string& run, Step step,
                                                         LayerIndex layer);
  /// Without a step: the newest complete checkpoint without damage.
  /// Errors: NOT_FOUND, DATA_LOSS (its manifest cannot be read).
  absl::StatusOr<std::pair<CheckpointInfo, Manifest>> GetCheckpoint(const std::string& run,
                                                                    std::optional<Step> step) const;
  /// At most `count` checkpoints after `after`, ascending by (run, step); run "" = all.
  std::vector<CheckpointInfo> ListCheckpoints(
      const std::string& run, const std::optional<std::pair<std::string, Step>>& after,
      size_t count) const;

  /// generation 0 = an operator's call, not fenced; else fenced as a put.
  /// Errors: NOT_FOUND unless the checkpoint is complete; FAILED_PRECONDITION (stale generation).
  absl::Status Pin(const std::string& run, Step step, Generation generation);
  absl::Status Unpin(const std::string& run, Step step, Generation generation);
  /// Also of an incomplete or unreadable checkpoint. Its contents stay until the next collection.
  /// Errors: NOT_FOUND; FAILED_PRECONDITION (pinned, stale generation).
  absl::Status Delete(const std::string& run, Step step, Generation generation);
  /// Removes uploads without a writer and contents that no checkpoint holds, complete or not.
  /// Errors: FAILED_PRECONDITION while a manifest cannot be read, since what it holds is unknown.
  absl::StatusOr<GarbageCollected> CollectGarbage();
  StoreUsage Usage() const;

 private:
  friend class LayerPut;
  friend class LayerReader;
  struct Blob {
    int64_t id = 0;          // differs between two files of one digest
    int64_t size_bytes = 0;  // of the file
    bool damaged = false;
  };
  struct Run {
    Generation newest;
    std::map<Step, Manifest> complete, pending;
    std::map<Step, std::string> unreadable;  // why
    std::set<Step> pins;
    size_t num_checkpoints() const { return complete.size() + pending.size() + unreadable.size(); }
  };
  using UploadKey = std::pair<ContentDigest, int64_t>;

  LayerStore(const LayerStoreOptions& options, FileOperations& files)
      : options_(options), files_(files) {}

  std::string Path(absl::string_view name) const;
  std::string RunPath(const std::string& run) const;
  std::string PendingPath(const std::string& run, Step step) const;
  std::string BlobFolder(const ContentDigest& digest) const;
  std::string BlobPath(const ContentDigest& digest) const;
  std::string UploadPath(const LayerEntry& entry) const;

  // ---- Recovery (layer_store_open.cc) ----
  absl::Status Lock();
  absl::Status Recover() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<std::vector<std::string>> CleanList(const std::string& folder);
  absl::Status RecoverUploads();
  absl::Status RecoverBlobs() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status RecoverBlob(const std::string& folder, const std::string& name)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status RecoverRun(const std::string& run) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status RecoverManifests(const std::string& name, Run& run)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status RecoverPending(const std::string& name, Run& run)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status RecoverPendingLayer(const std::string& path, const std::string& name, Step step,
                                   Run& run) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status RecoverGeneration(const std::string& name, Run& run)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // ---- Uploads (layer_put.cc) ----
  absl::StatusOr<std::shared_ptr<LayerUpload>> Attach(const LayerEntry& entry)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Detach(LayerUpload& upload);
  /// Ends an upload for good: whoever adds to it gets `why`.
  void Drop(LayerUpload& upload, const absl::Status& why) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void DropIdleUploads() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status Finish(LayerPut& put, LayerUpload& upload);
  absl::Status Publish(LayerUpload& upload) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status MakeRoom(int64_t bytes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // ---- Checkpoints (layer_store.cc) ----
  /// Refuses a generation that is over, and a run too many.
  absl::Status CheckGeneration(const std::string& run, Generation generation) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  /// Makes what CheckGeneration accepted the newest one of the run, durably.
  absl::Status RaiseGeneration(const std::string& run, Generation generation)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  /// Both; nothing for generation 0.
  absl::Status Fence(const std::string& run, Generation generation)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  /// Whether Record would refuse the version, contents aside.
  absl::Status CheckRecordable(const LayerVersion& version) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<PutState> Record(const LayerVersion& version)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status WritePending(const LayerVersion& version, Run& run)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status Complete(Run& run, Step step) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status RemovePending(const std::string& run, Step step)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool Holds(const LayerEntry& entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool Intact(const Manifest& manifest) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void SetBlob(const ContentDigest& digest, int64_t size_bytes, bool damaged)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void MarkDamaged(const ContentDigest& digest, int64_t blob_id);
  absl::StatusOr<const Run*> FindRun(const std::string& run) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<const Manifest*> FindComplete(const std::string& run, Step step) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  CheckpointInfo Info(const Manifest& manifest, const Run& run, bool complete) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void AppendInfos(const std::string& name, const Run& run,
                   std::vector<CheckpointInfo>* infos) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  size_t NumCheckpoints() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<GarbageCollected> Sweep() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const LayerStoreOptions options_;
  FileOperations& files_;
  int lock_fd_ = -1;
  std::vector<std::string> recovered_;

  // Taken after a LayerUpload's own mutex, never before it.
  mutable absl::Mutex mutex_;
  std::map<std::string, Run> runs_ ABSL_GUARDED_BY(mutex_);
  std::map<ContentDigest, Blob> blobs_ ABSL_GUARDED_BY(mutex_);
  std::map<UploadKey, std::shared_ptr<LayerUpload>> uploads_ ABSL_GUARDED_BY(mutex_);
  std::set<std::string> blob_folders_ ABSL_GUARDED_BY(mutex_);  // known to be durable
  int64_t stored_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t reserved_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t next_id_ ABSL_GUARDED_BY(mutex_) = 1;
};

}  // namespace smartpipe
