// How contents come in: uploads, their publication, the room for them.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/base/limits.h"
#include "services/base/status_macros.h"
#include "services/parameter_service/layer_store.h"
#include "services/parameter_service/layer_upload.h"

namespace smartpipe {
namespace {

absl::Status CheckRange(absl::string_view field, int64_t value, int64_t min, int64_t max) {
  if (value >= min && value <= max) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(field, " is ", value, "; the range is ", min, " to ", max));
}

absl::Status CheckVersion(const LayerVersion& version) {
  if (!IsRunId(version.run)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "run_id \"", version.run.substr(0, limits::kNameBytesMax), "\" is not a name of 1 to ",
        limits::kNameBytesMax, " letters, digits, dots, - and _ that starts with no dot"));
  }
  SP_RETURN_IF_ERROR(CheckRange("generation", version.generation.value(), 1, INT64_MAX));
  SP_RETURN_IF_ERROR(CheckRange("step", version.step.value(), 0, limits::kStepsMax));
  SP_RETURN_IF_ERROR(CheckRange("num_layers", version.num_layers, 1, limits::kLayersMax));
  SP_RETURN_IF_ERROR(CheckRange("layer", version.layer.value(), 0, version.num_layers - 1));
  SP_RETURN_IF_ERROR(
      CheckRange("size_bytes", version.entry.size_bytes, 0, limits::kTensorBytesMax));
  if (IsLayerName(version.entry.name)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("the name of layer ", version.layer.value(), " has ", version.entry.name.size(),
                   " bytes; a name has 1 to ", limits::kLayerNameBytesMax,
                   " bytes of UTF-8 without control characters"));
}

}  // namespace

LayerPut::LayerPut(LayerStore* store, LayerVersion version, int64_t id)
    : store_(store), version_(std::move(version)), id_(id) {}

LayerPut::~LayerPut() {
  if (upload_ != nullptr) store_->Detach(*upload_);
}

absl::StatusOr<std::unique_ptr<LayerPut>> LayerStore::BeginPut(const LayerVersion& version) {
  SP_RETURN_IF_ERROR(CheckVersion(version));
  std::unique_ptr<LayerPut> put;
  {
    absl::MutexLock lock(&mutex_);
    SP_RETURN_IF_ERROR(CheckGeneration(version.run, version.generation));
    SP_RETURN_IF_ERROR(CheckRecordable(version));
    put.reset(new LayerPut(this, version, next_id_++));
    const bool held = Holds(version.entry);
    if (!held) {
      SP_ASSIGN_OR_RETURN(put->upload_, Attach(version.entry));
    }
    // Only now is nothing left to refuse, so a put that is refused leaves no trace.
    SP_RETURN_IF_ERROR(RaiseGeneration(version.run, version.generation));
    if (held) {
      SP_ASSIGN_OR_RETURN(put->state_, Record(version));
      put->state_.already_there = true;
      return put;
    }
  }
  LayerUpload& upload = *put->upload_;
  absl::MutexLock lock(&upload.mutex);
  put->state_.bytes_held = upload.bytes_held;
  // A layer without bytes has its last one already.
  if (version.entry.size_bytes == 0 && upload.failure.ok()) {
    SP_RETURN_IF_ERROR(Finish(*put, upload));
  }
  return put;
}

absl::Status LayerPut::Append(int64_t offset, absl::string_view bytes) {
  if (state_.complete) return absl::OkStatus();
  LayerUpload& upload = *upload_;
  absl::MutexLock lock(&upload.mutex);
  SP_RETURN_IF_ERROR(upload.failure);
  // Another put of the content brought its last byte.
  if (upload.published) return store_->Finish(*this, upload);
  const int64_t size = upload.entry.size_bytes;
  const int64_t count = static_cast<int64_t>(bytes.size());
  if (offset < 0 || offset > size || count > size - offset) {
    return absl::InvalidArgumentError(absl::StrCat("a chunk of ", count, " bytes at offset ",
                                                   offset, " does not fit a layer of ", size,
                                                   " bytes"));
  }
  if (offset > upload.bytes_held) {
    return absl::InvalidArgumentError(absl::StrCat("a chunk starts at offset ", offset, " but ",
                                                   upload.bytes_held,
                                                   " bytes are held; go on from there"));
  }
  bytes.remove_prefix(std::min<size_t>(upload.bytes_held - offset, bytes.size()));
  if (!bytes.empty()) {
    if (const absl::Status status = upload.file->Append(bytes); !status.ok()) {
      absl::MutexLock store_lock(&store_->mutex_);
      store_->Drop(upload, status);
      return status;
    }
    upload.several_writers |= upload.last_writer != 0 && upload.last_writer != id_;
    upload.last_writer = id_;
    upload.hasher.Add(bytes);
    upload.bytes_held += static_cast<int64_t>(bytes.size());
  }
  state_.bytes_held = upload.bytes_held;
  return upload.bytes_held == size ? store_->Finish(*this, upload) : absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<LayerUpload>> LayerStore::Attach(const LayerEntry& entry) {
  const UploadKey key(entry.digest, entry.size_bytes);
  auto found = uploads_.find(key);
  if (found == uploads_.end()) {
    if (static_cast<int64_t>(uploads_.size()) >= limits::kUploadsMax) DropIdleUploads();
    if (static_cast<int64_t>(uploads_.size()) >= limits::kUploadsMax) {
      return absl::ResourceExhaustedError(absl::StrCat(
          uploads_.size(), " layers are being uploaded; at most ", limits::kUploadsMax));
    }
    SP_RETURN_IF_ERROR(MakeRoom(entry.size_bytes));
    SP_ASSIGN_OR_RETURN(std::unique_ptr<WritableFile> file, files_.Create(UploadPath(entry)));
    auto upload = std::make_shared<LayerUpload>(entry, UploadPath(entry), std::move(file));
    reserved_bytes_ += entry.size_bytes;
    found = uploads_.emplace(key, std::move(upload)).first;
  }
  ++found->second->num_puts;
  return found->second;
}

void LayerStore::Detach(LayerUpload& upload) {
  absl::MutexLock lock(&mutex_);
  --upload.num_puts;
}

// The caller holds the upload's mutex, or no put has the upload.
void LayerStore::Drop(LayerUpload& upload, const absl::Status& why) ABSL_NO_THREAD_SAFETY_ANALYSIS {
  if (!upload.failure.ok()) return;
  upload.failure = why;
  upload.file.reset();
  files_.Remove(upload.path).IgnoreError();  // a leftover goes at the next start
  reserved_bytes_ -= upload.entry.size_bytes;
  uploads_.erase({upload.entry.digest, upload.entry.size_bytes});
}

void LayerStore::DropIdleUploads() {
  std::vector<std::shared_ptr<LayerUpload>> idle;
  for (const auto& [key, upload] : uploads_) {
    if (upload->num_puts == 0) idle.push_back(upload);
  }
  for (const auto& upload : idle) {
    Drop(*upload, absl::UnavailableError("the upload was dropped; start again"));
  }
}

// The caller holds the upload's mutex; all bytes are in, or another put has published them.
absl::Status LayerStore::Finish(LayerPut& put, LayerUpload& upload) ABSL_NO_THREAD_SAFETY_ANALYSIS {
  absl::Status status;
  if (!upload.published) {
    const ContentDigest digest = upload.hasher.Finish();
    if (digest != upload.entry.digest) {
      const std::string message =
          absl::StrCat("the ", upload.entry.size_bytes, " bytes have sha256 ", digest.hex(),
                       ", announced was ", upload.entry.digest.hex(), "; nothing was kept");
      // With one writer it is his mistake; bytes of several may each be right.
      status = upload.several_writers
                   ? absl::UnavailableError(absl::StrCat(message, ", send it again from offset 0"))
                   : absl::InvalidArgumentError(message);
    } else {
      status = upload.file->Sync();
    }
  }
  absl::MutexLock lock(&mutex_);
  if (!upload.published) {
    if (status.ok()) status = Publish(upload);
    if (!status.ok()) {
      Drop(upload, status);
      return status;
    }
    upload.published = true;
  }
  if (!Holds(put.version_.entry)) {  // collected or found damaged since
    return absl::UnavailableError("the content of this layer went away; put it again");
  }
  SP_RETURN_IF_ERROR(CheckGeneration(put.version_.run, put.version_.generation));
  SP_RETURN_IF_ERROR(CheckRecordable(put.version_));
  SP_ASSIGN_OR_RETURN(put.state_, Record(put.version_));
  return absl::OkStatus();
}

absl::Status LayerStore::Publish(LayerUpload& upload) ABSL_NO_THREAD_SAFETY_ANALYSIS {
  const ContentDigest& digest = upload.entry.digest;
  const std::string folder = BlobFolder(digest);
  if (blob_folders_.count(folder) == 0) {
    SP_RETURN_IF_ERROR(MakeFolderDurably(files_, Path("blobs"), digest.hex().substr(0, 2)));
    blob_folders_.insert(folder);
  }
  upload.file.reset();
  SP_RETURN_IF_ERROR(files_.Rename(upload.path, BlobPath(digest)));
  if (const absl::Status status = files_.SyncFolder(folder); !status.ok()) {
    // Its name may be gone after a power cut, so nothing may rely on it.
    const bool removed = files_.Remove(BlobPath(digest)).ok();
    SetBlob(digest, removed ? 0 : upload.entry.size_bytes, /*damaged=*/true);
    return status;
  }
  reserved_bytes_ -= upload.entry.size_bytes;
  uploads_.erase({digest, upload.entry.size_bytes});
  SetBlob(digest, upload.entry.size_bytes, /*damaged=*/false);
  return absl::OkStatus();
}

absl::Status LayerStore::MakeRoom(int64_t bytes) {
  const int64_t quota = options_.quota_bytes;
  const auto fits = [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    return quota == 0 || bytes <= quota - stored_bytes_ - reserved_bytes_;
  };
  absl::Status swept;
  if (!fits() && bytes <= quota) swept = Sweep().status();
  if (!fits() && bytes <= quota) DropIdleUploads();
  if (fits()) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrCat("no room for ", bytes, " bytes: ", stored_bytes_, " are stored and ",
                   reserved_bytes_, " on their way of a quota of ", quota, "; ",
                   swept.ok() ? "delete old checkpoints or raise --quota-bytes" : swept.message()));
}

}  // namespace smartpipe
