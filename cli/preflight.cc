#include "cli/preflight.h"

#include <fcntl.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>

#include "absl/algorithm/container.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "cli/files.h"
#include "services/base/limits.h"
#include "services/base/status_macros.h"
#include "services/base/text.h"
#include "services/config/set_words.h"

namespace smartpipe {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kFreeBytesMin = 64 << 20;  // logs, decisions and the weights of the largest model

// The files that a dataset consists of.
struct DatasetFiles {
  std::string name;
  std::string default_path;
  std::vector<std::string> files;
  std::string labels;  // IDX files whose headers hold the number of training and test samples
  std::string test_labels;
  std::string cure;
};

const std::vector<DatasetFiles>& KnownDatasetFiles() {
  static const auto* const known = new std::vector<DatasetFiles>{
      {.name = "fashion_mnist",
       // The same as kDefaultFolder in worker/data/fashion_mnist.cc, where workers read: change
       // both.
       .default_path = "/usr/share/datasets/fashion-mnist",
       .files = {"train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte",
                 "t10k-labels-idx1-ubyte"},
       .labels = "train-labels-idx1-ubyte",
       .test_labels = "t10k-labels-idx1-ubyte",
       .cure =
           "install the package dataset-fashion-mnist, or set data.path to a folder that has them"},
  };
  return *known;
}

const DatasetFiles* FindDatasetFiles(const std::string& name) {
  for (const DatasetFiles& dataset : KnownDatasetFiles()) {
    if (dataset.name == name) return &dataset;
  }
  return nullptr;
}

// Number of samples that the header of an IDX file announces, plain or compressed; none when it
// cannot be read: the workers, who read all of it, say then what is wrong.
std::optional<int64_t> ReadIdxCount(const std::string& path) {
  gzFile file = gzopen(path.c_str(), "rb");
  if (file == nullptr) file = gzopen((path + ".gz").c_str(), "rb");
  if (file == nullptr) return std::nullopt;
  unsigned char header[8];
  const bool complete = gzread(file, header, sizeof(header)) == static_cast<int>(sizeof(header));
  gzclose(file);
  if (!complete || header[0] != 0 || header[1] != 0) return std::nullopt;
  return static_cast<int64_t>(header[4]) << 24 | header[5] << 16 | header[6] << 8 | header[7];
}

void MakeAbsolute(std::string& path) {
  if (!path.empty()) path = fs::absolute(path).lexically_normal().string();
}

// Problems with the files that the config names, and the numbers of samples if they can be told.
std::vector<ConfigProblem> CheckFiles(const RunConfig& config,
                                      std::optional<int64_t>& num_train_samples,
                                      std::optional<int64_t>& num_test_samples) {
  const DatasetFiles* const dataset = FindDatasetFiles(config.data.name);
  if (dataset == nullptr) return CheckConfigFiles(config, {});
  RunConfig with_path = config;
  if (with_path.data.path.empty()) with_path.data.path = dataset->default_path;
  std::vector<ConfigProblem> problems = CheckConfigFiles(with_path, dataset->files);
  for (ConfigProblem& problem : problems) {
    if (problem.key == "data.path") absl::StrAppend(&problem.message, "; ", dataset->cure);
  }
  if (problems.empty()) {
    num_train_samples = ReadIdxCount(with_path.data.path + "/" + dataset->labels);
    num_test_samples = ReadIdxCount(with_path.data.path + "/" + dataset->test_labels);
  }
  return problems;
}

// `folder` need not be there yet.
absl::Status CheckFreeSpace(const std::string& folder) {
  std::error_code error;
  fs::path there = fs::absolute(folder, error);
  while (!fs::exists(there, error) && there.has_relative_path()) there = there.parent_path();
  struct statvfs info;
  if (statvfs(there.c_str(), &info) != 0) return absl::OkStatus();  // writing will tell
  const int64_t free_bytes =
      static_cast<int64_t>(info.f_bavail) * static_cast<int64_t>(info.f_frsize);
  if (free_bytes >= kFreeBytesMin) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("the disk of the run directory ", folder, " has only ", free_bytes >> 20,
                   " MB free, a run needs ", kFreeBytesMin >> 20,
                   " MB; free some space or give another place by --run-dir"));
}

std::string DefaultRunDir(const std::string& label, absl::Time now) {
  const std::string base = absl::StrCat(
      "runs/", absl::FormatTime("%Y%m%d-%H%M%S", now, absl::UTCTimeZone()), "-", label);
  std::string path = base;
  std::error_code error;
  for (int i = 2; fs::exists(path, error); ++i) path = absl::StrCat(base, "-", i);
  return path;
}

}  // namespace

absl::StatusOr<CheckedConfig> LoadConfig(const std::string& path,
                                         const std::vector<std::string>& sets) {
  const absl::StatusOr<std::string> text = ReadSmallFile(path, limits::kConfigBytesMax);
  if (!text.ok()) return absl::FailedPreconditionError(text.status().message());
  CheckedConfig checked;
  std::vector<ConfigProblem> problems = CheckRunConfig(*text, sets, &checked.config);
  bool about_keys = absl::c_any_of(problems, [](const ConfigProblem& p) { return !p.key.empty(); });
  if (problems.empty()) {
    MakeAbsolute(checked.config.data.path);
    MakeAbsolute(checked.config.model.weights);
    // The current folder's name, too, must be text that a config can hold.
    problems = CheckRunConfig(ToToml(checked.config), {}, nullptr);
    for (ConfigProblem& problem : problems) problem.line = 0;
  }
  if (problems.empty()) {
    std::optional<int64_t> num_train_samples;
    problems = CheckFiles(checked.config, num_train_samples, checked.num_test_samples);
    for (ConfigProblem& problem : problems)
      absl::StrAppend(&problem.message, SetOrigin(sets, problem.key, problem.message));
    if (checked.num_test_samples && checked.config.data.limit_test > 0) {
      checked.num_test_samples =
          std::min(*checked.num_test_samples, checked.config.data.limit_test);
    }
    if (num_train_samples) {
      absl::StatusOr<RunShape> shape = MakeRunShape(checked.config, *num_train_samples);
      if (shape.ok()) {
        checked.shape = *shape;
      } else {
        const std::string message(shape.status().message());
        problems.push_back(
            {.line = 0, .key = "", .message = message + SetOrigin(sets, "", message)});
        about_keys = true;
      }
    }
  }
  if (problems.empty()) return checked;
  return absl::Status(
      about_keys ? absl::StatusCode::kInvalidArgument : absl::StatusCode::kFailedPrecondition,
      absl::StrJoin(problems, "\n", [&](std::string* out, const ConfigProblem& problem) {
        absl::StrAppend(out, FormatConfigProblem(problem, path));
      }));
}

absl::StatusOr<std::string> MakeRunDir(const std::string& requested, const std::string& label,
                                       const RunConfig& config, absl::Time now) {
  const std::string path = requested.empty() ? DefaultRunDir(label, now) : requested;
  if (!IsUtf8(fs::absolute(path).string())) {
    return absl::FailedPreconditionError(
        "the run directory's path is not UTF-8 text; give another place by --run-dir");
  }
  SP_RETURN_IF_ERROR(CheckFreeSpace(path));
  std::error_code error;
  if (fs::exists(path, error) && !fs::is_directory(path, error)) {
    return absl::FailedPreconditionError(
        absl::StrCat("the run directory ", path, " is a file; give another name"));
  }
  if (fs::is_directory(path, error) && !fs::is_empty(path, error)) {
    return absl::FailedPreconditionError(
        absl::StrCat("the run directory ", path,
                     " is not empty; give a new one by --run-dir, or delete it first"));
  }
  fs::create_directories(path + "/logs", error);
  if (error) {
    return absl::FailedPreconditionError(absl::StrCat("cannot make the run directory ", path, ": ",
                                                      error.message(),
                                                      "; give another place by --run-dir"));
  }
  if (const absl::Status written = WriteFileAtomically(path + "/config.toml", ToToml(config));
      !written.ok()) {
    return absl::FailedPreconditionError(
        absl::StrCat(written.message(), "; give another place by --run-dir"));
  }
  return path;
}

absl::Status CheckWritable(const std::string& path) {
  std::error_code error;
  const fs::file_status now = fs::status(path, error);
  if (fs::is_directory(now))
    return absl::FailedPreconditionError(absl::StrCat(path, " is a folder, not a file"));
  if (fs::exists(now) && !fs::is_regular_file(now))
    return absl::FailedPreconditionError(absl::StrCat(path, " is a device or a pipe, not a file"));
  fs::path folder = fs::path(path).parent_path();
  if (folder.empty()) folder = ".";
  if (!fs::is_directory(folder, error)) {
    return absl::FailedPreconditionError(
        absl::StrCat("the folder ", folder.string(), " does not exist; make it first"));
  }
  if (access(folder.c_str(), W_OK) != 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("cannot write into ", folder.string(), ": ", std::strerror(errno)));
  }
  // The name may still be too long, or the folder one that makes no files.
  const std::string trial = absl::StrCat(path, ".", getpid(), ".tmp");
  const int fd = open(trial.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd < 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("cannot write ", path, ": ", std::strerror(errno)));
  }
  close(fd);
  unlink(trial.c_str());
  return absl::OkStatus();
}

}  // namespace smartpipe
