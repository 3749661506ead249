// Checkpoints: records, manifests, lists, pins, garbage.
#include "services/parameter_service/layer_store.h"

#include <unistd.h>

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "services/base/limits.h"
#include "services/base/status_macros.h"
#include "services/parameter_service/layer_upload.h"

namespace smartpipe {
namespace {

std::string NameOf(const std::string& run, Step step) {
  return absl::StrCat("the checkpoint of step ", step.value(), " of run \"", run, "\"");
}

}  // namespace

bool IsRunId(absl::string_view name) { return name == ToRunId(name); }

std::string ToRunId(absl::string_view name) {
  std::string id(name.empty() ? "_" : name.substr(0, limits::kNameBytesMax));
  for (char& c : id) {
    if (!absl::ascii_isalnum(static_cast<unsigned char>(c)) && c != '-' && c != '_' && c != '.')
      c = '_';
  }
  if (id[0] == '.') id[0] = '_';
  return id;
}

LayerStore::~LayerStore() {
  if (lock_fd_ >= 0) close(lock_fd_);
}

// ---- Places -------------------------------------------------------------------------------------

std::string LayerStore::Path(absl::string_view name) const {
  return absl::StrCat(options_.folder, "/", name);
}
std::string LayerStore::RunPath(const std::string& run) const {
  return absl::StrCat(options_.folder, "/runs/", run);
}
std::string LayerStore::PendingPath(const std::string& run, Step step) const {
  return absl::StrCat(RunPath(run), "/pending/", step.value());
}
std::string LayerStore::BlobFolder(const ContentDigest& digest) const {
  return absl::StrCat(options_.folder, "/blobs/", digest.hex().substr(0, 2));
}
std::string LayerStore::BlobPath(const ContentDigest& digest) const {
  return absl::StrCat(BlobFolder(digest), "/", digest.hex());
}
std::string LayerStore::UploadPath(const LayerEntry& entry) const {
  return absl::StrCat(options_.folder, "/partial/", entry.digest.hex(), "-", entry.size_bytes);
}

// ---- Recording ----------------------------------------------------------------------------------

absl::Status LayerStore::CheckGeneration(const std::string& name, Generation generation) const {
  const auto found = runs_.find(name);
  if (found != runs_.end() && generation < found->second.newest) {
    return absl::FailedPreconditionError(
        absl::StrCat("generation ", generation.value(), " of run \"", name,
                     "\" is over: the newest is ", found->second.newest.value()));
  }
  if (found != runs_.end() || static_cast<int64_t>(runs_.size()) < limits::kStoredRunsMax) {
    return absl::OkStatus();
  }
  return absl::ResourceExhaustedError(absl::StrCat(
      "the store holds ", runs_.size(), " runs, the most it can; stop the service and ",
      "remove the folders of old runs from ", Path("runs")));
}

absl::Status LayerStore::RaiseGeneration(const std::string& name, Generation generation) {
  const auto found = runs_.find(name);
  if (found != runs_.end() && generation <= found->second.newest) return absl::OkStatus();
  if (found == runs_.end()) {
    SP_RETURN_IF_ERROR(MakeFolderDurably(files_, Path("runs"), name));
    for (const char* folder : {"manifests", "pending", "pins"}) {
      SP_RETURN_IF_ERROR(MakeFolderDurably(files_, RunPath(name), folder));
    }
  }
  SP_RETURN_IF_ERROR(
      WriteDurably(files_, RunPath(name), "generation", absl::StrCat(generation.value(), "\n")));
  runs_[name].newest = generation;
  return absl::OkStatus();
}

absl::Status LayerStore::Fence(const std::string& name, Generation generation) {
  if (generation.value() == 0) return absl::OkStatus();
  SP_RETURN_IF_ERROR(CheckGeneration(name, generation));
  return RaiseGeneration(name, generation);
}

absl::Status LayerStore::CheckRecordable(const LayerVersion& version) const {
  const auto found = runs_.find(version.run);
  if (found == runs_.end()) return absl::OkStatus();
  const Run& run = found->second;
  auto complete = run.complete.find(version.step);
  auto pending = run.pending.find(version.step);
  const Manifest* manifest = pending != run.pending.end()     ? &pending->second
                             : complete != run.complete.end() ? &complete->second
                                                              : nullptr;
  if (manifest == nullptr || manifest->generation != version.generation) {
    const bool is_new = manifest == nullptr && run.unreadable.count(version.step) == 0;
    if (!is_new || static_cast<int64_t>(NumCheckpoints()) < limits::kCheckpointsMax) {
      return absl::OkStatus();
    }
    return absl::ResourceExhaustedError(absl::StrCat("the store holds ", NumCheckpoints(),
                                                     " checkpoints; at most ",
                                                     limits::kCheckpointsMax, ": delete old ones"));
  }
  if (manifest->num_layers != version.num_layers) {
    return absl::InvalidArgumentError(
        absl::StrCat(NameOf(version.run, version.step), " has ", manifest->num_layers,
                     " layers by the puts before this one, which says ", version.num_layers));
  }
  const auto entry = manifest->layers.find(version.layer);
  if (entry == manifest->layers.end() || entry->second == version.entry) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(
      "layer ", version.layer.value(), " of ", NameOf(version.run, version.step),
      " was put before as \"", entry->second.name, "\" with sha256 ", entry->second.digest.hex(),
      ", now as \"", version.entry.name, "\" with ", version.entry.digest.hex(),
      "; within a generation a checkpoint does not change"));
}

absl::StatusOr<PutState> LayerStore::Record(const LayerVersion& version) {
  Run& run = runs_[version.run];
  PutState state{.bytes_held = version.entry.size_bytes, .complete = true};
  auto complete = run.complete.find(version.step);
  if (complete != run.complete.end() && complete->second.generation == version.generation) {
    state.checkpoint_complete = true;  // a repeat
    return state;
  }
  auto pending = run.pending.find(version.step);
  if (pending != run.pending.end() && pending->second.generation < version.generation) {
    RemovePending(version.run, version.step).IgnoreError();  // as in Complete
    run.pending.erase(pending);
  }
  SP_RETURN_IF_ERROR(WritePending(version, run));
  if (run.pending.at(version.step).complete()) {
    SP_RETURN_IF_ERROR(Complete(run, version.step));
    state.checkpoint_complete = true;
  }
  return state;
}

absl::Status LayerStore::WritePending(const LayerVersion& version, Run& run) {
  Manifest record{version.run, version.step, version.generation, version.num_layers, {}};
  const auto pending = run.pending.find(version.step);
  if (pending != run.pending.end() && pending->second.layers.count(version.layer) > 0) {
    return absl::OkStatus();  // a repeat
  }
  if (pending == run.pending.end()) {
    SP_RETURN_IF_ERROR(MakeFolderDurably(files_, absl::StrCat(RunPath(version.run), "/pending"),
                                         absl::StrCat(version.step.value())));
  }
  Manifest one = record;
  one.layers[version.layer] = version.entry;
  SP_RETURN_IF_ERROR(WriteDurably(files_, PendingPath(version.run, version.step),
                                  absl::StrCat(version.layer.value()), EncodeManifest(one)));
  run.pending.try_emplace(version.step, record).first->second.layers[version.layer] = version.entry;
  return absl::OkStatus();
}

absl::Status LayerStore::Complete(Run& run, Step step) {
  auto pending = run.pending.find(step);
  SP_RETURN_IF_ERROR(WriteDurably(files_, absl::StrCat(RunPath(pending->second.run), "/manifests"),
                                  absl::StrCat(step.value()), EncodeManifest(pending->second)));
  // What stays behind goes at the next start: a manifest is there.
  RemovePending(pending->second.run, step).IgnoreError();
  run.unreadable.erase(step);
  run.complete[step] = std::move(pending->second);
  run.pending.erase(pending);
  return absl::OkStatus();
}

absl::Status LayerStore::RemovePending(const std::string& run, Step step) {
  const std::string folder = PendingPath(run, step);
  const absl::StatusOr<std::vector<std::string>> names = files_.List(folder);
  if (absl::IsNotFound(names.status())) return absl::OkStatus();
  SP_RETURN_IF_ERROR(names.status());
  for (const std::string& name : *names) {
    SP_RETURN_IF_ERROR(files_.Remove(absl::StrCat(folder, "/", name)));
  }
  return files_.Remove(folder);
}

// ---- Contents -----------------------------------------------------------------------------------

bool LayerStore::Holds(const LayerEntry& entry) {
  const auto found = blobs_.find(entry.digest);
  if (found == blobs_.end() || found->second.damaged) return false;
  // A look at the file costs little, and a content that went away must not be taken for stored.
  const auto file = files_.Open(BlobPath(entry.digest));
  if (file.ok() && (*file)->size_bytes() == entry.size_bytes) return true;
  if (entry.size_bytes == found->second.size_bytes) found->second.damaged = true;
  return false;
}

bool LayerStore::Intact(const Manifest& manifest) const {
  return std::all_of(manifest.layers.begin(), manifest.layers.end(),
                     [this](const auto& item) ABSL_NO_THREAD_SAFETY_ANALYSIS {
                       const auto blob = blobs_.find(item.second.digest);
                       return blob != blobs_.end() && !blob->second.damaged &&
                              blob->second.size_bytes == item.second.size_bytes;
                     });
}

void LayerStore::SetBlob(const ContentDigest& digest, int64_t size_bytes, bool damaged) {
  Blob& blob = blobs_[digest];
  stored_bytes_ += size_bytes - blob.size_bytes;
  blob = {next_id_++, size_bytes, damaged};
}

void LayerStore::MarkDamaged(const ContentDigest& digest, int64_t blob_id) {
  absl::MutexLock lock(&mutex_);
  const auto found = blobs_.find(digest);
  if (found != blobs_.end() && found->second.id == blob_id) found->second.damaged = true;
}

absl::StatusOr<GarbageCollected> LayerStore::Sweep() {
  std::set<ContentDigest> held;
  for (const auto& [name, run] : runs_) {
    if (!run.unreadable.empty()) {
      return absl::FailedPreconditionError(
          absl::StrCat("nothing is collected while ", NameOf(name, run.unreadable.begin()->first),
                       " cannot be read (", run.unreadable.begin()->second,
                       "), since what it holds is unknown; delete that checkpoint first"));
    }
    for (const auto* manifests : {&run.complete, &run.pending}) {
      for (const auto& [step, manifest] : *manifests) {
        for (const auto& [layer, entry] : manifest.layers) held.insert(entry.digest);
      }
    }
  }
  GarbageCollected collected;
  for (auto blob = blobs_.begin(); blob != blobs_.end();) {
    if (held.count(blob->first) > 0) {
      ++blob;
      continue;
    }
    const absl::Status removed = files_.Remove(BlobPath(blob->first));
    if (!removed.ok() && !absl::IsNotFound(removed)) return removed;
    ++collected.num_blobs;
    collected.freed_bytes += blob->second.size_bytes;
    stored_bytes_ -= blob->second.size_bytes;
    blob = blobs_.erase(blob);
  }
  return collected;
}

absl::StatusOr<GarbageCollected> LayerStore::CollectGarbage() {
  absl::MutexLock lock(&mutex_);
  DropIdleUploads();
  return Sweep();
}

StoreUsage LayerStore::Usage() const {
  absl::MutexLock lock(&mutex_);
  StoreUsage usage{.quota_bytes = options_.quota_bytes,
                   .stored_bytes = stored_bytes_,
                   .reserved_bytes = reserved_bytes_,
                   .num_blobs = static_cast<int64_t>(blobs_.size()),
                   .num_checkpoints = static_cast<int64_t>(NumCheckpoints())};
  for (const auto& [digest, blob] : blobs_) usage.num_damaged_blobs += blob.damaged;
  return usage;
}

// ---- Checkpoints --------------------------------------------------------------------------------

size_t LayerStore::NumCheckpoints() const {
  size_t count = 0;
  for (const auto& [name, run] : runs_) count += run.num_checkpoints();
  return count;
}

absl::StatusOr<const LayerStore::Run*> LayerStore::FindRun(const std::string& name) const {
  const auto found = runs_.find(name);
  if (found != runs_.end()) return &found->second;
  return absl::NotFoundError(
      absl::StrCat("no run \"", name.substr(0, limits::kNameBytesMax), "\" has stored anything"));
}

absl::StatusOr<const Manifest*> LayerStore::FindComplete(const std::string& name, Step step) const {
  SP_ASSIGN_OR_RETURN(const Run* run, FindRun(name));
  const auto complete = run->complete.find(step);
  if (complete != run->complete.end()) return &complete->second;
  const auto unreadable = run->unreadable.find(step);
  if (unreadable != run->unreadable.end()) {
    return absl::DataLossError(
        absl::StrCat(NameOf(name, step), " cannot be read: ", unreadable->second));
  }
  const auto pending = run->pending.find(step);
  if (pending != run->pending.end()) {
    return absl::NotFoundError(
        absl::StrCat(NameOf(name, step), " is not complete: ", pending->second.layers.size(),
                     " of ", pending->second.num_layers, " layers are there"));
  }
  return absl::NotFoundError(absl::StrCat(NameOf(name, step), " is not there"));
}

CheckpointInfo LayerStore::Info(const Manifest& manifest, const Run& run, bool complete) const {
  return {.run = manifest.run,
          .step = manifest.step,
          .generation = manifest.generation,
          .state = !complete          ? CheckpointState::kIncomplete
                   : Intact(manifest) ? CheckpointState::kComplete
                                      : CheckpointState::kDamaged,
          .num_layers = manifest.num_layers,
          .num_layers_stored = static_cast<int32_t>(manifest.layers.size()),
          .size_bytes = manifest.size_bytes(),
          .pinned = run.pins.count(manifest.step) > 0};
}

absl::StatusOr<std::pair<CheckpointInfo, Manifest>> LayerStore::GetCheckpoint(
    const std::string& name, std::optional<Step> step) const {
  absl::MutexLock lock(&mutex_);
  SP_ASSIGN_OR_RETURN(const Run* run, FindRun(name));
  if (step.has_value()) {
    SP_ASSIGN_OR_RETURN(const Manifest* manifest, FindComplete(name, *step));
    return std::make_pair(Info(*manifest, *run, true), *manifest);
  }
  for (auto it = run->complete.rbegin(); it != run->complete.rend(); ++it) {
    if (Intact(it->second)) return std::make_pair(Info(it->second, *run, true), it->second);
  }
  return absl::NotFoundError(
      absl::StrCat("run \"", name, "\" has no complete checkpoint without damage"));
}

void LayerStore::AppendInfos(const std::string& name, const Run& run,
                             std::vector<CheckpointInfo>* infos) const {
  const size_t first = infos->size();
  for (const auto& [step, manifest] : run.complete) infos->push_back(Info(manifest, run, true));
  for (const auto& [step, why] : run.unreadable) {
    infos->push_back({.run = name,
                      .step = step,
                      .state = CheckpointState::kDamaged,
                      .pinned = run.pins.count(step) > 0});
  }
  for (const auto& [step, manifest] : run.pending) {
    // A newer generation writes a step again: what can be read is shown until then.
    if (run.complete.count(step) + run.unreadable.count(step) > 0) continue;
    infos->push_back(Info(manifest, run, false));
  }
  std::sort(infos->begin() + first, infos->end(),
            [](const CheckpointInfo& a, const CheckpointInfo& b) { return a.step < b.step; });
}

std::vector<CheckpointInfo> LayerStore::ListCheckpoints(
    const std::string& name, const std::optional<std::pair<std::string, Step>>& after,
    size_t count) const {
  absl::MutexLock lock(&mutex_);
  std::vector<CheckpointInfo> page;
  auto run = after.has_value() ? runs_.lower_bound(after->first) : runs_.begin();
  for (; run != runs_.end() && page.size() < count; ++run) {
    if (!name.empty() && run->first != name) continue;
    std::vector<CheckpointInfo> infos;
    AppendInfos(run->first, run->second, &infos);
    for (CheckpointInfo& info : infos) {
      const bool seen = after.has_value() && info.run == after->first && info.step <= after->second;
      if (!seen && page.size() < count) page.push_back(std::move(info));
    }
  }
  return page;
}

absl::Status LayerStore::Pin(const std::string& name, Step step, Generation generation) {
  absl::MutexLock lock(&mutex_);
  SP_RETURN_IF_ERROR(FindComplete(name, step).status());
  SP_RETURN_IF_ERROR(Fence(name, generation));
  SP_RETURN_IF_ERROR(
      WriteDurably(files_, absl::StrCat(RunPath(name), "/pins"), absl::StrCat(step.value()), ""));
  runs_[name].pins.insert(step);
  return absl::OkStatus();
}

absl::Status LayerStore::Unpin(const std::string& name, Step step, Generation generation) {
  absl::MutexLock lock(&mutex_);
  SP_ASSIGN_OR_RETURN(const Run* run, FindRun(name));
  if (run->unreadable.count(step) == 0) SP_RETURN_IF_ERROR(FindComplete(name, step).status());
  SP_RETURN_IF_ERROR(Fence(name, generation));
  if (run->pins.count(step) == 0) return absl::OkStatus();
  const std::string folder = absl::StrCat(RunPath(name), "/pins");
  SP_RETURN_IF_ERROR(files_.Remove(absl::StrCat(folder, "/", step.value())));
  runs_[name].pins.erase(step);
  return files_.SyncFolder(folder);
}

absl::Status LayerStore::Delete(const std::string& name, Step step, Generation generation) {
  absl::MutexLock lock(&mutex_);
  SP_RETURN_IF_ERROR(FindRun(name).status());
  Run& run = runs_[name];
  const bool stored = run.complete.count(step) + run.unreadable.count(step) > 0;
  if (!stored && run.pending.count(step) == 0) return FindComplete(name, step).status();
  if (run.pins.count(step) > 0) {
    return absl::FailedPreconditionError(
        absl::StrCat(NameOf(name, step), " is pinned; take the pin away first"));
  }
  SP_RETURN_IF_ERROR(Fence(name, generation));
  // The records of layers first, also what a completion left: a start would make it again of them.
  SP_RETURN_IF_ERROR(RemovePending(name, step));
  run.pending.erase(step);
  SP_RETURN_IF_ERROR(files_.SyncFolder(absl::StrCat(RunPath(name), "/pending")));
  if (!stored) return absl::OkStatus();
  const std::string folder = absl::StrCat(RunPath(name), "/manifests");
  SP_RETURN_IF_ERROR(files_.Remove(absl::StrCat(folder, "/", step.value())));
  run.complete.erase(step);
  run.unreadable.erase(step);
  return files_.SyncFolder(folder);
}

// ---- Reading ------------------------------------------------------------------------------------

absl::StatusOr<std::unique_ptr<LayerReader>> LayerStore::OpenLayer(const std::string& run,
                                                                   Step step, LayerIndex layer) {
  std::unique_ptr<LayerReader> reader(new LayerReader());
  absl::StatusOr<std::unique_ptr<ReadableFile>> file;
  {
    absl::MutexLock lock(&mutex_);
    SP_ASSIGN_OR_RETURN(const Manifest* manifest, FindComplete(run, step));
    const auto entry = manifest->layers.find(layer);
    if (entry == manifest->layers.end()) {
      return absl::NotFoundError(absl::StrCat(NameOf(run, step), " has no layer ", layer.value(),
                                              "; its layers are 0 to ", manifest->num_layers - 1));
    }
    reader->store_ = this;
    reader->entry_ = entry->second;
    reader->what_ =
        absl::StrCat("layer ", layer.value(), " \"", entry->second.name, "\" of ",
                     NameOf(run, step), " is damaged (", BlobPath(entry->second.digest), ")");
    const auto blob = blobs_.find(entry->second.digest);
    if (blob == blobs_.end() || blob->second.damaged) {
      return absl::DataLossError(
          absl::StrCat(reader->what_,
                       ": its bytes are gone or wrong; put the layer again or use another "
                       "checkpoint"));
    }
    reader->blob_id_ = blob->second.id;
    file = files_.Open(BlobPath(entry->second.digest));
  }
  if (!file.ok()) return reader->Damaged(file.status().message());
  reader->file_ = *std::move(file);
  if (reader->file_->size_bytes() != reader->entry_.size_bytes) {
    return reader->Damaged(absl::StrCat("it has ", reader->file_->size_bytes(), " bytes, not ",
                                        reader->entry_.size_bytes));
  }
  return reader;
}

absl::Status LayerReader::Damaged(absl::string_view why) {
  store_->MarkDamaged(entry_.digest, blob_id_);
  failure_ = absl::DataLossError(absl::StrCat(what_, ": ", why));
  return failure_;
}

absl::StatusOr<size_t> LayerReader::Read(char* buffer, size_t count) {
  if (checked_) return 0;
  SP_RETURN_IF_ERROR(failure_);
  absl::StatusOr<size_t> num_read = file_->Read(buffer, count);
  if (!num_read.ok()) return Damaged(num_read.status().message());
  bytes_read_ += static_cast<int64_t>(*num_read);
  hasher_.Add(absl::string_view(buffer, *num_read));
  if (*num_read > 0 || count == 0) return num_read;
  if (bytes_read_ != entry_.size_bytes) {
    return Damaged(
        absl::StrCat("it ended after ", bytes_read_, " of ", entry_.size_bytes, " bytes"));
  }
  const ContentDigest digest = hasher_.Finish();
  if (digest != entry_.digest) {
    return Damaged(
        absl::StrCat("its bytes have sha256 ", digest.hex(), ", not ", entry_.digest.hex()));
  }
  checked_ = true;
  return 0;
}

}  // namespace smartpipe
