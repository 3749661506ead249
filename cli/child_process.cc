#include "cli/child_process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>

#include "absl/status/statusor.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"

namespace smartpipe {
namespace {

constexpr int64_t kTailBytesMax = 16'384;
constexpr size_t kTailLineBytesMax = 400;
constexpr absl::Duration kKillPatience = absl::Seconds(1);

std::string SignalName(int signal) {
  const char* name = sigabbrev_np(signal);
  return name == nullptr ? absl::StrCat("signal ", signal)
                         : absl::StrCat("SIG", name, " (signal ", signal, ")");
}

sigset_t WatchedSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGCHLD}) sigaddset(&signals, signal);
  return signals;
}

// Between fork and exec: only what is safe there (no memory is allocated, nothing is locked).
[[noreturn]] void BecomeChild(char* const* argv, int log_fd, int inherited_fd, int error_fd,
                              pid_t parent) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(127);  // the parent died before the line above
  sigset_t none;
  sigemptyset(&none);
  signal(SIGPIPE, SIG_DFL);
  signal(SIGINT, SIG_IGN);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  const int null_fd = open("/dev/null", O_RDONLY);
  if (null_fd >= 0) dup2(null_fd, STDIN_FILENO);
  dup2(log_fd, STDOUT_FILENO);
  dup2(log_fd, STDERR_FILENO);
  if (inherited_fd >= 0) fcntl(inherited_fd, F_SETFD, 0);
  execv(argv[0], argv);
  const int error = errno;
  if (write(error_fd, &error, sizeof(error)) < 0) _exit(126);
  _exit(127);
}

}  // namespace

std::string DescribeExit(const ChildExit& exit) {
  if (exit.signal != 0) return absl::StrCat("was killed by ", SignalName(exit.signal));
  return absl::StrCat("exited with code ", exit.exit_code);
}

std::vector<std::string> LastLines(const std::string& path, int num_lines) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file) return {};
  const int64_t size = file.tellg();
  std::string tail(std::min(size, kTailBytesMax), '\0');
  file.seekg(size - static_cast<int64_t>(tail.size()));
  file.read(tail.data(), static_cast<std::streamsize>(tail.size()));
  std::vector<std::string> lines;
  for (absl::string_view line : absl::StrSplit(tail, '\n')) {
    line = absl::StripTrailingAsciiWhitespace(line);
    if (!line.empty()) lines.emplace_back(line.substr(0, kTailLineBytesMax));
  }
  if (lines.size() > static_cast<size_t>(num_lines))
    lines.erase(lines.begin(), lines.end() - num_lines);
  return lines;
}

absl::StatusOr<std::unique_ptr<ChildProcesses>> ChildProcesses::Create() {
  auto self = std::unique_ptr<ChildProcesses>(new ChildProcesses());
  const sigset_t signals = WatchedSignals();
  sigprocmask(SIG_BLOCK, &signals, &self->old_mask_);
  self->signal_fd_ = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
  if (self->signal_fd_ < 0) return absl::ErrnoToStatus(errno, "signalfd");
  return self;
}

ChildProcesses::~ChildProcesses() {
  if (num_running() > 0) StopAll(absl::ZeroDuration());
  if (signal_fd_ < 0) return;
  ReadSignals();  // consumed here, or they would be delivered as soon as they are unblocked
  close(signal_fd_);
  sigprocmask(SIG_SETMASK, &old_mask_, nullptr);
}

absl::Status ChildProcesses::Start(const ChildSpec& spec) {
  const int log_fd =
      spec.log_path.empty()
          ? fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, STDERR_FILENO + 1)
          : open(spec.log_path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (log_fd < 0)
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot open the log file ", spec.log_path));
  int error_pipe[2];  // closed by a successful exec, else it carries the reason
  if (pipe2(error_pipe, O_CLOEXEC) != 0) {
    close(log_fd);
    return absl::ErrnoToStatus(errno, "pipe2");
  }
  std::vector<char*> argv;
  for (const std::string& word : spec.argv) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  const pid_t parent = getpid();
  const pid_t pid = fork();
  const int fork_error = errno;
  if (pid == 0) BecomeChild(argv.data(), log_fd, spec.inherited_fd, error_pipe[1], parent);
  close(log_fd);
  close(error_pipe[1]);
  int exec_error = 0;
  ssize_t num_read = 0;
  if (pid > 0) {
    do {
      num_read = read(error_pipe[0], &exec_error, sizeof(exec_error));
    } while (num_read < 0 && errno == EINTR);
  }
  close(error_pipe[0]);
  if (pid < 0) return absl::ErrnoToStatus(fork_error, absl::StrCat("cannot start ", spec.name));
  if (num_read > 0) {
    waitpid(pid, nullptr, 0);
    return absl::NotFoundError(
        absl::StrCat("cannot run the program ", spec.argv[0], ": ", std::strerror(exec_error)));
  }
  std::erase_if(children_, [&spec](const Child& child) {
    return !child.running && child.name == spec.name;  // the one that it replaces
  });
  children_.push_back({.name = spec.name, .pid = pid, .running = true});
  return absl::OkStatus();
}

size_t ChildProcesses::num_running() const {
  return static_cast<size_t>(std::count_if(children_.begin(), children_.end(),
                                           [](const Child& child) { return child.running; }));
}

bool ChildProcesses::IsRunning(const std::string& name) const {
  return std::any_of(children_.begin(), children_.end(),
                     [&name](const Child& child) { return child.running && child.name == name; });
}

void ChildProcesses::Kill(const std::string& name) {
  for (const Child& child : children_) {
    if (child.running && child.name == name) kill(child.pid, SIGKILL);
  }
}

void ChildProcesses::Wait(absl::Duration timeout, int readable_fd) {
  pollfd entries[2] = {
      {.fd = signal_fd_, .events = POLLIN, .revents = 0},
      {.fd = readable_fd, .events = POLLIN, .revents = 0}};  // poll skips a negative fd
  const int64_t timeout_ms = std::clamp<int64_t>(absl::ToInt64Milliseconds(timeout), 0, 3'600'000);
  if (poll(entries, 2, static_cast<int>(timeout_ms)) > 0) ReadSignals();
}

void ChildProcesses::ReadSignals() {
  signalfd_siginfo info;
  bool child_ended = false;
  while (read(signal_fd_, &info, sizeof(info)) == static_cast<ssize_t>(sizeof(info))) {
    if (info.ssi_signo == SIGCHLD) {
      child_ended = true;
    } else {
      ++num_stop_signals_;
      if (stop_signal_ == 0) stop_signal_ = static_cast<int>(info.ssi_signo);
    }
  }
  if (child_ended) Reap();
}

void ChildProcesses::Reap() {
  for (Child& child : children_) {
    int status = 0;
    if (!child.running || waitpid(child.pid, &status, WNOHANG) != child.pid) continue;
    child.running = false;
    exits_.push_back({.name = child.name,
                      .exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 0,
                      .signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0});
  }
}

void ChildProcesses::Signal(int signal) {
  for (const Child& child : children_) {
    if (child.running)
      kill(child.pid, signal);  // not reaped yet, so the number is still this child's
  }
}

void ChildProcesses::StopAll(absl::Duration patience) {
  for (const auto& [signal, wait] :
       {std::pair(SIGTERM, patience), std::pair(SIGKILL, kKillPatience)}) {
    Signal(signal);
    const absl::Time deadline = absl::Now() + wait;
    while (num_running() > 0 && absl::Now() < deadline)
      Wait(deadline - absl::Now() + absl::Milliseconds(1));
    if (num_running() == 0) return;
  }
}

}  // namespace smartpipe
