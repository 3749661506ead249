#include "services/parameter_service/stored_checkpoints.h"

#include <map>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "services/base/status_macros.h"

namespace smartpipe {
namespace {

using Checkpoints = std::map<Step, CheckpointFiles>;

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

}  // namespace smartpipe
