#include "services/parameter_service/stored_checkpoints.h"

#include <map>
#include <set>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "services/base/content_digest.h"
#include "services/base/status_macros.h"

namespace smartpipe {
namespace {

using Checkpoints = std::map<Step, CheckpointFiles>;

// How often checkpoints may be removed under the reader, who each time takes a newer one.
constexpr int kAttemptsMax = 10;
constexpr size_t kStepsShownMax = 20;

// Names in the folder; none if it is not there.
absl::StatusOr<std::vector<std::string>> ListIfThere(FileOperations& files,
                                                     const std::string& folder) {
  absl::StatusOr<std::vector<std::string>> names = files.List(folder);
  if (absl::IsNotFound(names.status())) return std::vector<std::string>();
  return names;
}

// False for what is no step, as temporary files.
bool ParseStep(const std::string& name, Step* step) {
  int64_t value = 0;
  if (!absl::SimpleAtoi(name, &value) || value < 0) return false;
  *step = Step(value);
  return true;
}

absl::StatusOr<Manifest> ReadManifest(FileOperations& files, const std::string& path) {
  SP_ASSIGN_OR_RETURN(const std::string text, ReadWhole(files, path, kManifestBytesMax));
  return DecodeManifest(text);
}

absl::Status AddComplete(FileOperations& files, const std::string& run_folder,
                         const std::string& run, Checkpoints& checkpoints) {
  const std::string folder = run_folder + "/manifests";
  SP_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListIfThere(files, folder));
  for (const std::string& name : names) {
    Step step;
    if (!ParseStep(name, &step)) continue;
    absl::StatusOr<Manifest> manifest = ReadManifest(files, absl::StrCat(folder, "/", name));
    if (absl::IsNotFound(manifest.status())) continue;
    CheckpointFiles& checkpoint = checkpoints[step];
    if (manifest.ok()) {
      checkpoint.manifest = *std::move(manifest);
    } else {
      checkpoint.manifest.run = run;
      checkpoint.manifest.step = step;
      checkpoint.problem = std::string(manifest.status().message());
    }
  }
  return absl::OkStatus();
}

// Of each step without a manifest the layers of the newest generation.
absl::Status AddIncomplete(FileOperations& files, const std::string& run_folder,
                           Checkpoints& checkpoints) {
  const std::string folder = run_folder + "/pending";
  SP_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListIfThere(files, folder));
  for (const std::string& name : names) {
    Step step;
    if (!ParseStep(name, &step) || checkpoints.contains(step)) continue;
    const std::string step_folder = absl::StrCat(folder, "/", name);
    SP_ASSIGN_OR_RETURN(const std::vector<std::string> layers, ListIfThere(files, step_folder));
    for (const std::string& layer : layers) {
      absl::StatusOr<Manifest> record = ReadManifest(files, absl::StrCat(step_folder, "/", layer));
      if (!record.ok()) continue;  // being written, deleted or damaged: not there
      Manifest& manifest = checkpoints[step].manifest;
      if (manifest.generation < record->generation) {
        manifest = *std::move(record);
      } else if (manifest.generation == record->generation) {
        manifest.layers.merge(record->layers);
      }
    }
  }
  return absl::OkStatus();
}

absl::Status AddPins(FileOperations& files, const std::string& run_folder,
                     Checkpoints& checkpoints) {
  SP_ASSIGN_OR_RETURN(const std::vector<std::string> names,
                      ListIfThere(files, run_folder + "/pins"));
  for (const std::string& name : names) {
    Step step;
    if (!ParseStep(name, &step)) continue;
    const auto checkpoint = checkpoints.find(step);
    if (checkpoint != checkpoints.end()) checkpoint->second.pinned = true;
  }
  return absl::OkStatus();
}

bool Whole(const CheckpointFiles& checkpoint) {
  return checkpoint.problem.empty() && checkpoint.manifest.complete();
}

// "those of steps 10, 20 and 32 are complete": what can be asked for instead; the newest of many.
std::string StepsText(const std::vector<CheckpointFiles>& checkpoints) {
  std::vector<std::string> steps;
  for (const CheckpointFiles& checkpoint : checkpoints) {
    if (Whole(checkpoint)) steps.push_back(absl::StrCat(checkpoint.manifest.step.value()));
  }
  if (steps.size() == 1) return absl::StrCat("that of step ", steps[0], " is complete");
  const std::string last = steps.back();
  steps.pop_back();
  const bool many = steps.size() >= kStepsShownMax;
  if (many) steps.erase(steps.begin(), steps.end() - (kStepsShownMax - 1));
  return absl::StrCat("those of steps ", many ? "..., " : "", absl::StrJoin(steps, ", "), " and ",
                      last, " are complete");
}

// Why the checkpoint of `step`, with `found` of it, is none to read.
absl::Status Refuse(Step step, const CheckpointFiles* found,
                    const std::vector<CheckpointFiles>& checkpoints) {
  const std::string advice = absl::StrCat("; ", StepsText(checkpoints));
  if (found == nullptr) {
    return absl::NotFoundError(
        absl::StrCat("there is no checkpoint of step ", step.value(), advice));
  }
  if (!found->problem.empty()) {
    return absl::DataLossError(absl::StrCat("the checkpoint of step ", step.value(),
                                            " is damaged: ", found->problem, advice));
  }
  return absl::NotFoundError(absl::StrCat("the checkpoint of step ", step.value(), " has only ",
                                          found->manifest.layers.size(), " of ",
                                          found->manifest.num_layers, " layers", advice));
}

std::string BlobPath(const std::string& folder, const ContentDigest& digest) {
  const std::string hex = digest.hex();
  return absl::StrCat(folder, "/blobs/", hex.substr(0, 2), "/", hex);
}

// NOT_FOUND when a file is gone, by whatever cause.
absl::Status TakeLayers(
    const std::string& folder, const Manifest& manifest,
    const std::function<absl::Status(LayerIndex, const std::string& bytes)>& take,
    FileOperations& files) {
  for (const auto& [layer, entry] : manifest.layers) {
    const std::string what = absl::StrCat("layer ", layer.value(), " (\"", entry.name,
                                          "\") of the checkpoint of step ", manifest.step.value());
    const absl::StatusOr<std::string> bytes = ReadBlob(folder, entry, files);
    if (!bytes.ok()) return Annotate(bytes.status(), what);
    const absl::Status taken = take(layer, *bytes);
    // The bytes are those that were stored: whatever is wrong with them is no file that is gone.
    if (!taken.ok())
      return absl::DataLossError(absl::StrCat(what, " (", BlobPath(folder, entry.digest),
                                              ") cannot be used: ", taken.message()));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<CheckpointFiles>> ReadCheckpoints(const std::string& folder,
                                                             FileOperations& files) {
  SP_ASSIGN_OR_RETURN(const std::vector<std::string> runs, files.List(folder + "/runs"));
  std::vector<CheckpointFiles> all;
  for (const std::string& run : runs) {
    const std::string run_folder = absl::StrCat(folder, "/runs/", run);
    Checkpoints checkpoints;
    SP_RETURN_IF_ERROR(AddComplete(files, run_folder, run, checkpoints));
    SP_RETURN_IF_ERROR(AddIncomplete(files, run_folder, checkpoints));
    SP_RETURN_IF_ERROR(AddPins(files, run_folder, checkpoints));
    for (auto& [step, checkpoint] : checkpoints) all.push_back(std::move(checkpoint));
  }
  return all;
}

absl::StatusOr<Manifest> ChooseCheckpoint(const std::vector<CheckpointFiles>& checkpoints,
                                          std::optional<Step> step) {
  const CheckpointFiles* found = nullptr;  // of the step, or the newest whole one
  const CheckpointFiles* damaged = nullptr;
  bool any_whole = false;
  std::set<std::string> runs;
  for (const CheckpointFiles& checkpoint : checkpoints) {
    const bool whole = Whole(checkpoint);
    any_whole |= whole;
    if (whole) runs.insert(checkpoint.manifest.run);
    if (!checkpoint.problem.empty()) damaged = &checkpoint;
    const bool wanted =
        step ? checkpoint.manifest.step == *step
             : whole && (found == nullptr || found->manifest.step < checkpoint.manifest.step);
    if (wanted) found = &checkpoint;
  }
  if (runs.size() > 1) {
    return absl::FailedPreconditionError(absl::StrCat("there are checkpoints of several runs (",
                                                      absl::StrJoin(runs, ", "),
                                                      "); remove those that you do not mean"));
  }
  if (!any_whole && damaged != nullptr) {
    return absl::DataLossError(
        absl::StrCat("the checkpoint of step ", damaged->manifest.step.value(),
                     " is damaged: ", damaged->problem, "; there is no complete one"));
  }
  if (!any_whole) {
    return absl::UnavailableError(
        "there is no complete checkpoint yet; the first is taken after checkpoint.every_steps "
        "steps, so wait for it, or train again with fewer");
  }
  if (found == nullptr || !Whole(*found)) return Refuse(*step, found, checkpoints);
  return found->manifest;
}

absl::StatusOr<std::string> ReadBlob(const std::string& folder, const LayerEntry& entry,
                                     FileOperations& files) {
  const std::string path = BlobPath(folder, entry.digest);
  SP_ASSIGN_OR_RETURN(const std::unique_ptr<ReadableFile> file, files.Open(path));
  if (file->size_bytes() != entry.size_bytes) {
    return absl::DataLossError(absl::StrCat(path, " is damaged: it has ", file->size_bytes(),
                                            " bytes, not ", entry.size_bytes));
  }
  std::string bytes(static_cast<size_t>(entry.size_bytes), '\0');
  for (size_t begin = 0; begin < bytes.size();) {
    SP_ASSIGN_OR_RETURN(const size_t count, file->Read(bytes.data() + begin, bytes.size() - begin));
    if (count == 0) {
      return absl::DataLossError(
          absl::StrCat(path, " is damaged: it ends after ", begin, " of its bytes"));
    }
    begin += count;
  }
  const ContentDigest digest = DigestOf(bytes);
  if (digest != entry.digest) {
    return absl::DataLossError(
        absl::StrCat(path, " is damaged: its bytes have sha256 ", digest.hex()));
  }
  return bytes;
}

absl::StatusOr<Manifest> ReadCheckpoint(
    const std::string& folder, std::optional<Step> step,
    const std::function<absl::Status(LayerIndex, const std::string& bytes)>& take,
    FileOperations& files) {
  for (int attempt = 1;; ++attempt) {
    SP_ASSIGN_OR_RETURN(const std::vector<CheckpointFiles> checkpoints,
                        ReadCheckpoints(folder, files));
    const absl::StatusOr<Manifest> manifest = ChooseCheckpoint(checkpoints, step);
    // None at all also is what a list shows that was read while the only one gave way to the next.
    if (absl::IsUnavailable(manifest.status()) && attempt < kAttemptsMax) continue;
    SP_RETURN_IF_ERROR(manifest.status());
    const absl::Status taken = TakeLayers(folder, *manifest, take, files);
    if (taken.ok()) return manifest;
    if (absl::IsNotFound(taken) && attempt < kAttemptsMax) continue;
    return absl::Status(absl::IsNotFound(taken) ? absl::StatusCode::kDataLoss : taken.code(),
                        absl::StrCat(taken.message(), "; take the checkpoint of another step"));
  }
}

}  // namespace smartpipe
