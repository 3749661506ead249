// What the layer store finds in its folder when it starts.
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "services/base/limits.h"
#include "services/base/status_macros.h"
#include "services/parameter_service/layer_store.h"
#include "services/parameter_service/layer_upload.h"

namespace smartpipe {
namespace {

constexpr size_t kReadBytes = 1 << 20;
constexpr int64_t kGenerationFileBytesMax = 32;

absl::StatusOr<ContentDigest> DigestOfFile(ReadableFile& file) {
  ContentHasher hasher;
  std::string buffer(kReadBytes, '\0');
  while (true) {
    SP_ASSIGN_OR_RETURN(const size_t count, file.Read(buffer.data(), buffer.size()));
    if (count == 0) return hasher.Finish();
    hasher.Add(absl::string_view(buffer.data(), count));
  }
}

bool ParseStep(const std::string& name, Step* step) {
  int64_t value = 0;
  if (!absl::SimpleAtoi(name, &value) || name != absl::StrCat(value)) return false;
  *step = Step(value);
  return value >= 0;
}

}  // namespace

absl::StatusOr<std::unique_ptr<LayerStore>> LayerStore::Open(const LayerStoreOptions& options,
                                                             FileOperations& files) {
  if (options.folder.empty() || options.quota_bytes < 0) {
    return absl::InvalidArgumentError("a layer store needs a folder and a quota of >= 0 bytes");
  }
  std::unique_ptr<LayerStore> store(new LayerStore(options, files));
  SP_RETURN_IF_ERROR(files.MakeFolder(options.folder));
  SP_RETURN_IF_ERROR(store->Lock());
  absl::MutexLock lock(&store->mutex_);
  SP_RETURN_IF_ERROR(store->Recover());
  return store;
}

absl::Status LayerStore::Lock() {
  const std::string path = Path("lock");
  lock_fd_ = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (lock_fd_ < 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot open ", path));
  if (flock(lock_fd_, LOCK_EX | LOCK_NB) == 0) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat("another process serves the layer store ",
                                             options_.folder,
                                             "; stop it, or choose another folder"));
}

absl::Status LayerStore::Recover() {
  for (const char* folder : {"partial", "blobs", "runs"}) {
    SP_RETURN_IF_ERROR(files_.MakeFolder(Path(folder)));
  }
  SP_RETURN_IF_ERROR(files_.SyncFolder(options_.folder));
  SP_RETURN_IF_ERROR(RecoverUploads());
  SP_RETURN_IF_ERROR(RecoverBlobs());
  SP_ASSIGN_OR_RETURN(const std::vector<std::string> runs, CleanList(Path("runs")));
  for (const std::string& run : runs) {
    if (IsRunId(run)) {
      SP_RETURN_IF_ERROR(Annotate(RecoverRun(run), absl::StrCat("run ", run)));
    } else {
      recovered_.push_back(absl::StrCat(Path("runs"), "/", run, " is no run; it was left alone"));
    }
  }
  return absl::OkStatus();
}

// Names in the folder without temporary files, which it removes. What is there counts as written
// from here on, so the names themselves are made durable.
absl::StatusOr<std::vector<std::string>> LayerStore::CleanList(const std::string& folder) {
  SP_ASSIGN_OR_RETURN(const std::vector<std::string> names, files_.List(folder));
  std::vector<std::string> kept;
  for (const std::string& name : names) {
    if (!absl::EndsWith(name, ".tmp")) {
      kept.push_back(name);
      continue;
    }
    SP_RETURN_IF_ERROR(files_.Remove(absl::StrCat(folder, "/", name)));
    recovered_.push_back(absl::StrCat("removed the unfinished file ", folder, "/", name));
  }
  SP_RETURN_IF_ERROR(files_.SyncFolder(folder));
  return kept;
}

absl::Status LayerStore::RecoverUploads() {
  SP_ASSIGN_OR_RETURN(const std::vector<std::string> names, files_.List(Path("partial")));
  for (const std::string& name : names) {
    SP_RETURN_IF_ERROR(files_.Remove(absl::StrCat(Path("partial"), "/", name)));
    recovered_.push_back(absl::StrCat("removed the unfinished upload ", name));
  }
  return absl::OkStatus();
}

absl::Status LayerStore::RecoverBlobs() {
  SP_ASSIGN_OR_RETURN(const std::vector<std::string> folders, CleanList(Path("blobs")));
  for (const std::string& folder : folders) {
    const std::string path = absl::StrCat(Path("blobs"), "/", folder);
    absl::StatusOr<std::vector<std::string>> names = CleanList(path);
    if (!names.ok()) {
      recovered_.push_back(absl::StrCat(path, " was left alone: ", names.status().message()));
      continue;
    }
    blob_folders_.insert(path);
    for (const std::string& name : *names) SP_RETURN_IF_ERROR(RecoverBlob(path, name));
  }
  return absl::OkStatus();
}

absl::Status LayerStore::RecoverBlob(const std::string& folder, const std::string& name) {
  const std::string path = absl::StrCat(folder, "/", name);
  const absl::StatusOr<ContentDigest> digest = ParseContentDigest(name);
  if (!digest.ok() || BlobFolder(*digest) != folder) {
    recovered_.push_back(absl::StrCat(path, " is no content of a layer; it was left alone"));
    return absl::OkStatus();
  }
  absl::StatusOr<std::unique_ptr<ReadableFile>> file = files_.Open(path);
  if (!file.ok()) {
    recovered_.push_back(absl::StrCat("damaged: ", file.status().message()));
    SetBlob(*digest, 0, /*damaged=*/true);
    return absl::OkStatus();
  }
  bool damaged = false;
  if (options_.verify) {
    const absl::StatusOr<ContentDigest> actual = DigestOfFile(**file);
    damaged = !actual.ok() || *actual != *digest;
    if (damaged) {
      recovered_.push_back(
          absl::StrCat("damaged: the ", (*file)->size_bytes(), " bytes of ", path,
                       actual.ok() ? absl::StrCat(" have sha256 ", actual->hex())
                                   : absl::StrCat(" cannot be read: ", actual.status().message()),
                       "; its layers are refused until they are put again"));
    }
  }
  SetBlob(*digest, (*file)->size_bytes(), damaged);
  return absl::OkStatus();
}

absl::Status LayerStore::RecoverRun(const std::string& name) {
  for (const char* folder : {"manifests", "pending", "pins"}) {
    SP_RETURN_IF_ERROR(MakeFolderDurably(files_, RunPath(name), folder));
  }
  SP_RETURN_IF_ERROR(CleanList(RunPath(name)).status());
  Run& run = runs_[name];
  SP_RETURN_IF_ERROR(RecoverManifests(name, run));
  SP_RETURN_IF_ERROR(RecoverPending(name, run));
  SP_RETURN_IF_ERROR(RecoverGeneration(name, run));
  SP_ASSIGN_OR_RETURN(const std::vector<std::string> pins,
                      CleanList(absl::StrCat(RunPath(name), "/pins")));
  for (const std::string& pin : pins) {
    Step step;
    if (ParseStep(pin, &step)) run.pins.insert(step);
  }
  return absl::OkStatus();
}

absl::Status LayerStore::RecoverManifests(const std::string& name, Run& run) {
  const std::string folder = absl::StrCat(RunPath(name), "/manifests");
  SP_ASSIGN_OR_RETURN(const std::vector<std::string> files, CleanList(folder));
  for (const std::string& file : files) {
    const std::string path = absl::StrCat(folder, "/", file);
    Step step;
    if (!ParseStep(file, &step)) {
      recovered_.push_back(absl::StrCat(path, " is no manifest; it was left alone"));
      continue;
    }
    absl::StatusOr<Manifest> manifest;
    absl::StatusOr<std::string> text = ReadWhole(files_, path, kManifestBytesMax);
    manifest = text.ok() ? DecodeManifest(*text) : text.status();
    if (manifest.ok() &&
        (manifest->run != name || manifest->step != step || !manifest->complete())) {
      manifest = absl::DataLossError("it is the manifest of another checkpoint");
    }
    if (!manifest.ok()) {
      run.unreadable[step] = absl::StrCat(path, ": ", manifest.status().message());
      recovered_.push_back(absl::StrCat("damaged: ", run.unreadable[step]));
      continue;
    }
    if (!Intact(*manifest)) {
      recovered_.push_back(absl::StrCat("damaged: the checkpoint of step ", step.value(),
                                        " of run \"", name,
                                        "\" names contents that are gone, torn or wrong"));
    }
    run.complete.emplace(step, *std::move(manifest));
  }
  return absl::OkStatus();
}

absl::Status LayerStore::RecoverPending(const std::string& name, Run& run) {
  const std::string folder = absl::StrCat(RunPath(name), "/pending");
  SP_ASSIGN_OR_RETURN(const std::vector<std::string> steps, CleanList(folder));
  for (const std::string& step_name : steps) {
    const std::string path = absl::StrCat(folder, "/", step_name);
    Step step;
    if (!ParseStep(step_name, &step)) {
      recovered_.push_back(absl::StrCat(path, " is no checkpoint; it was left alone"));
      continue;
    }
    SP_ASSIGN_OR_RETURN(const std::vector<std::string> layers, CleanList(path));
    for (const std::string& layer : layers) {
      SP_RETURN_IF_ERROR(RecoverPendingLayer(absl::StrCat(path, "/", layer), name, step, run));
    }
    const auto pending = run.pending.find(step);
    if (pending == run.pending.end()) {
      files_.Remove(path).IgnoreError();
    } else if (pending->second.complete()) {
      SP_RETURN_IF_ERROR(Complete(run, step));
      recovered_.push_back(absl::StrCat("completed the checkpoint of step ", step.value(),
                                        " of run \"", name, "\": all its layers were there"));
    }
  }
  return absl::OkStatus();
}

// One record counts if its bytes are there and nothing newer or complete is; else it is removed.
absl::Status LayerStore::RecoverPendingLayer(const std::string& path, const std::string& name,
                                             Step step, Run& run) {
  absl::StatusOr<std::string> text = ReadWhole(files_, path, kManifestBytesMax);
  absl::StatusOr<Manifest> record = text.ok() ? DecodeManifest(*text) : text.status();
  if (record.ok() && (record->run != name || record->step != step || record->layers.size() != 1)) {
    record = absl::DataLossError("it is no record of a layer of this checkpoint");
  }
  if (record.ok() && !Intact(*record)) {
    record = absl::DataLossError("the content that it names is gone, torn or wrong");
  }
  if (!record.ok()) {
    recovered_.push_back(absl::StrCat("damaged: ", path, ": ", record.status().message(),
                                      "; the layer must be put again"));
    return files_.Remove(path);
  }
  const auto complete = run.complete.find(step);
  if (complete != run.complete.end() && complete->second.generation >= record->generation) {
    return files_.Remove(path);
  }
  const auto [pending, is_first] = run.pending.try_emplace(step, *record);
  if (is_first) return absl::OkStatus();
  Manifest& held = pending->second;
  if (held.generation > record->generation || held.num_layers != record->num_layers) {
    return files_.Remove(path);
  }
  if (held.generation < record->generation) {
    for (const auto& [layer, entry] : held.layers) {
      SP_RETURN_IF_ERROR(files_.Remove(absl::StrCat(PendingPath(name, step), "/", layer.value())));
    }
    held = *std::move(record);
    return absl::OkStatus();
  }
  held.layers.insert(record->layers.begin(), record->layers.end());
  return absl::OkStatus();
}

absl::Status LayerStore::RecoverGeneration(const std::string& name, Run& run) {
  for (const auto* manifests : {&run.complete, &run.pending}) {
    for (const auto& [step, manifest] : *manifests) {
      run.newest = std::max(run.newest, manifest.generation);
    }
  }
  const std::string path = absl::StrCat(RunPath(name), "/generation");
  absl::StatusOr<std::string> text = ReadWhole(files_, path, kGenerationFileBytesMax);
  if (absl::IsNotFound(text.status())) return absl::OkStatus();
  int64_t generation = 0;
  if (text.ok() && absl::SimpleAtoi(absl::StripSuffix(*text, "\n"), &generation)) {
    run.newest = std::max(run.newest, Generation(generation));
  } else {
    recovered_.push_back(absl::StrCat("damaged: ", path, " holds no number; generations from ",
                                      run.newest.value(), " on are accepted"));
  }
  return absl::OkStatus();
}

}  // namespace smartpipe
