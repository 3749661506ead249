#include "cli/launcher.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "services/base/status_macros.h"

namespace smartpipe {
namespace {

constexpr char kServiceName[] = "freeze_service";
constexpr int kLastWords = 10;

std::string WorkerName(int64_t index) { return absl::StrCat("w", index); }

absl::Status CheckProgram(const std::string& path) {
  if (access(path.c_str(), X_OK) == 0) return absl::OkStatus();
  return absl::ErrnoToStatus(errno,
                             absl::StrCat("cannot run the program ", path,
                                          ", which must be in the same folder as smartpipe"));
}

/// Closes a file descriptor at the end of a scope.
class FdCloser {
 public:
  explicit FdCloser(int fd) : fd_(fd) {}
  ~FdCloser() { Close(); }
  FdCloser(const FdCloser&) = delete;
  FdCloser& operator=(const FdCloser&) = delete;
  void Close() {
    if (fd_ >= 0) close(std::exchange(fd_, -1));
  }
  int fd() const { return fd_; }

 private:
  int fd_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Launcher>> Launcher::Create(const LaunchOptions& options) {
  SP_RETURN_IF_ERROR(CheckProgram(options.service_program));
  SP_RETURN_IF_ERROR(CheckProgram(options.worker_program));
  auto launcher = std::unique_ptr<Launcher>(new Launcher(options));
  SP_ASSIGN_OR_RETURN(launcher->children_, ChildProcesses::Create());
  return launcher;
}

std::string Launcher::LogPath(const std::string& name) const {
  return absl::StrCat(options_.run_dir, "/logs/", name, ".log");
}

absl::Status Launcher::StartAll() {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) return absl::ErrnoToStatus(errno, "pipe2");
  FdCloser read_end(ends[0]), write_end(ends[1]);
  SP_RETURN_IF_ERROR(children_->Start(
      {.name = kServiceName,
       .argv = {options_.service_program, "--listen", "127.0.0.1:0", "--config",
                options_.run_dir + "/config.toml", "--run-dir", options_.run_dir, "--ready-fd",
                absl::StrCat(write_end.fd()), "--cores", absl::StrCat(options_.num_cores)},
       .log_path = LogPath(kServiceName),
       .inherited_fd = write_end.fd()}));
  write_end.Close();  // or the end of the service would not end the pipe
  SP_ASSIGN_OR_RETURN(const std::string port, WaitForPort(read_end.fd()));
  service_address_ = absl::StrCat("127.0.0.1:", port);
  for (int64_t i = 0; i < options_.num_workers; ++i) {
    const std::string name = WorkerName(i);
    SP_RETURN_IF_ERROR(children_->Start(
        {.name = name,
         .argv = {options_.worker_program, "--service", service_address_, "--worker-id", name},
         .log_path = LogPath(name)}));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> Launcher::WaitForPort(int ready_fd) {
  const absl::Time deadline = absl::Now() + options_.start_timeout;
  std::string text;
  while (absl::Now() < deadline) {
    children_->Wait(deadline - absl::Now() + absl::Milliseconds(1), ready_fd);
    if (stop_signal() != 0) return absl::CancelledError("stopped");
    char buffer[64];
    const ssize_t count = read(ready_fd, buffer, sizeof(buffer));
    if (count > 0) text.append(buffer, static_cast<size_t>(count));
    int port = 0;
    if (absl::EndsWith(text, "\n")) {
      const absl::string_view digits = absl::StripSuffix(text, "\n");
      if (absl::SimpleAtoi(digits, &port) && port > 0 && port < 65'536) return absl::StrCat(port);
      return absl::InternalError(
          absl::StrCat("the freeze service gave no port but \"", digits, "\""));
    }
    if (count == 0) {  // the service has gone, or closed its end without a word
      children_->Wait(absl::Seconds(1));
      return absl::UnavailableError("the freeze service did not start");
    }
  }
  return absl::DeadlineExceededError(absl::StrCat("the freeze service did not start within ",
                                                  absl::FormatDuration(options_.start_timeout),
                                                  "; see ", LogPath(kServiceName)));
}

bool Launcher::workers_done() const {
  const std::vector<ChildExit>& exits = children_->exits();
  return std::count_if(exits.begin(), exits.end(), [](const ChildExit& exit) {
           return exit.ok() && exit.name != kServiceName;
         }) == options_.num_workers;
}

std::optional<LaunchFailure> Launcher::FindFailure(absl::string_view message) const {
  // The smaller, the more to blame: a signal first, then the place of the quoted name in the
  // message; npos where it is not named.
  const auto rank = [&](const ChildExit& exit) {
    const size_t place = message.find(absl::StrCat("\"", exit.name, "\""));
    return std::make_pair(exit.signal == 0, exit.signal == 0 ? place : 0);
  };
  const ChildExit* blamed = nullptr;
  for (const ChildExit& exit : children_->exits()) {
    if (exit.ok() && exit.name != kServiceName) continue;
    if (blamed == nullptr || rank(exit) < rank(*blamed)) blamed = &exit;
  }
  if (blamed == nullptr) return std::nullopt;
  const bool is_service = blamed->name == kServiceName;
  const std::string log_path = LogPath(blamed->name);
  return LaunchFailure{.process = absl::StrCat(is_service ? "" : "worker ", blamed->name),
                       .how = DescribeExit(*blamed),
                       .killed = blamed->signal != 0,
                       .last_words = LastLines(log_path, kLastWords),
                       .log_path = log_path};
}

}  // namespace smartpipe
