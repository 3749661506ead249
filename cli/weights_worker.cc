#include "cli/weights_worker.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <limits>
#include <memory>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/time.h"
#include "cli/child_process.h"
#include "cli/commands.h"
#include "cli/files.h"
#include "nlohmann/json.hpp"
#include "services/base/status_macros.h"
#include "services/base/text.h"

namespace smartpipe {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr char kProgram[] = "stage_worker";
constexpr size_t kAnswerBytesMax = 1 << 20;

bool HasCheckpoints(const fs::path& folder) {
  std::error_code error;
  return fs::is_directory(folder / "checkpoints", error);
}

// A pipe whose ends close themselves.
struct Pipe {
  Pipe() = default;
  Pipe(const Pipe&) = delete;
  Pipe& operator=(const Pipe&) = delete;
  ~Pipe() {
    CloseWriteEnd();
    if (ends[0] >= 0) close(ends[0]);
  }
  absl::Status Open() {
    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) == 0) return absl::OkStatus();
    return absl::ErrnoToStatus(errno, "pipe2");
  }
  void CloseWriteEnd() {
    if (ends[1] >= 0) close(std::exchange(ends[1], -1));
  }
  int ends[2] = {-1, -1};
};

// Adds what can be read now; true at the end of the pipe.
bool ReadSome(int fd, std::string& text) {
  char buffer[4096];
  for (;;) {
    const ssize_t count = read(fd, buffer, sizeof(buffer));
    if (count == 0) return true;
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return errno != EAGAIN;
    if (text.size() < kAnswerBytesMax) text.append(buffer, static_cast<size_t>(count));
  }
}

int64_t Integer(const Json& object, const char* key) {
  const auto value = object.find(key);
  return value != object.end() && value->is_number_integer() ? value->get<int64_t>() : 0;
}

double Real(const Json& object, const char* key) {
  const auto value = object.find(key);
  return value != object.end() && value->is_number() ? value->get<double>()
                                                     : std::numeric_limits<double>::quiet_NaN();
}

}  // namespace

absl::Status CheckRunDir(const std::string& run_dir) {
  constexpr char kCure[] = "; name the folder that `smartpipe train` printed";
  std::error_code error;
  if (!fs::is_directory(run_dir, error))
    return absl::NotFoundError(absl::StrCat("there is no run directory ", run_dir, kCure));
  if (HasCheckpoints(run_dir)) return absl::OkStatus();
  std::vector<std::string> below;
  for (const auto& entry : fs::directory_iterator(run_dir, error)) {
    if (HasCheckpoints(entry.path())) below.push_back(entry.path().string());
  }
  std::sort(below.begin(), below.end());
  if (!below.empty()) {
    return absl::NotFoundError(
        absl::StrCat(run_dir, " holds runs and is none; give ", absl::StrJoin(below, " or ")));
  }
  return absl::NotFoundError(absl::StrCat(run_dir, " is no run directory with checkpoints", kCure));
}

absl::StatusOr<WeightsAnswer> ParseWeightsAnswer(absl::string_view json) {
  const Json object = Json::parse(json.begin(), json.end(), nullptr, /*allow_exceptions=*/false);
  const absl::Status strange = absl::InternalError(
      absl::StrCat(kProgram,
                   " answered something that this program does not understand; install both anew, "
                   "from the same build"));
  if (!object.is_object()) return strange;
  if (const auto error = object.find("error"); error != object.end()) {
    if (!error->is_object() || !error->contains("message") || !error->at("message").is_string())
      return strange;
    const auto code = static_cast<absl::StatusCode>(Integer(*error, "code"));
    return absl::Status(code == absl::StatusCode::kOk ? absl::StatusCode::kUnknown : code,
                        ForLog(error->at("message").get<std::string>()));
  }
  const auto digest = object.find("weights_sha256");
  if (digest == object.end() || !digest->is_string()) return strange;
  WeightsAnswer answer{.weights_sha256 = digest->get<std::string>(),
                       .test_accuracy = Real(object, "test_accuracy"),
                       .test_loss = Real(object, "test_loss"),
                       .num_samples = Integer(object, "num_samples"),
                       .num_tensors = Integer(object, "num_tensors"),
                       .tensor_bytes = Integer(object, "tensor_bytes")};
  if (const auto step = object.find("step"); step != object.end() && step->is_number_integer())
    answer.step = step->get<int64_t>();
  return answer;
}

absl::StatusOr<WeightsAnswer> RunWeightsWorker(const std::vector<std::string>& words) {
  SP_ASSIGN_OR_RETURN(const std::string folder, ProgramFolder());
  SP_ASSIGN_OR_RETURN(const std::unique_ptr<ChildProcesses> children, ChildProcesses::Create());
  Pipe pipe;
  SP_RETURN_IF_ERROR(pipe.Open());
  ChildSpec spec{.name = kProgram,
                 .argv = {absl::StrCat(folder, "/", kProgram)},
                 .inherited_fd = pipe.ends[1]};
  spec.argv.insert(spec.argv.end(), words.begin(), words.end());
  spec.argv.insert(spec.argv.end(), {"--result-fd", absl::StrCat(pipe.ends[1])});
  if (const absl::Status started = children->Start(spec); !started.ok())
    return absl::InternalError(started.message());
  pipe.CloseWriteEnd();
  std::string text;
  while (!ReadSome(pipe.ends[0], text) && children->stop_signal() == 0)
    children->Wait(absl::Minutes(1), pipe.ends[0]);
  while (children->num_running() > 0 && children->stop_signal() == 0)
    children->Wait(absl::Minutes(1));
  if (children->stop_signal() != 0) return absl::CancelledError("stopped");
  const ChildExit& exit = children->exits().front();
  if (!text.empty() && exit.signal == 0) return ParseWeightsAnswer(text);
  return absl::InternalError(absl::StrCat(
      kProgram, " ", DescribeExit(exit),
      exit.signal == 0 ? " and said nothing else; install it and this program from the same build"
                       : "; if nobody sent that signal, the system may have, for lack of memory "
                         "(`dmesg` tells)"));
}

int WeightsExitCode(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return kExitFinished;
    case absl::StatusCode::kCancelled:
      return kExitInterrupted;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kNotFound:
    case absl::StatusCode::kFailedPrecondition:
      return kExitUsage;
    default:
      return kExitFailed;
  }
}

}  // namespace smartpipe
