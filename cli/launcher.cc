#include "cli/launcher.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <set>
#include <tuple>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "services/base/status_macros.h"
#include "services/rpc/exit_codes.h"

namespace smartpipe {
namespace {

constexpr char kParameterName[] = "parameter_service";
constexpr char kServiceName[] = "freeze_service";
constexpr int kLastWords = 10;

std::string WorkerName(int64_t index) { return absl::StrCat("w", index); }

bool IsService(const std::string& name) { return name == kServiceName || name == kParameterName; }

// "freeze_service" as people read it.
std::string Spoken(const std::string& name) { return absl::StrReplaceAll(name, {{"_", " "}}); }

// Where this machine reaches what listens there: no certificate names "all addresses".
std::string Dialled(const std::string& listen) {
  const size_t colon = listen.rfind(':');
  const std::string host = listen.substr(0, colon);
  if (host == "0.0.0.0") return absl::StrCat("127.0.0.1", listen.substr(colon));
  if (host == "[::]") return absl::StrCat("[::1]", listen.substr(colon));
  return listen;
}

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
  SP_RETURN_IF_ERROR(CheckProgram(options.parameter_program));
  SP_RETURN_IF_ERROR(CheckProgram(options.service_program));
  SP_RETURN_IF_ERROR(CheckProgram(options.worker_program));
  auto launcher = std::unique_ptr<Launcher>(new Launcher(options));
  SP_ASSIGN_OR_RETURN(launcher->children_, ChildProcesses::Create());
  return launcher;
}

std::string Launcher::LogPath(const std::string& name) const {
  return absl::StrCat(options_.run_dir, "/logs/", name, ".log");
}

absl::Status Launcher::Start(const std::string& name, int inherited_fd) {
  started_[name] = absl::Now();
  return children_->Start({.name = name,
                           .argv = argv_.at(name),
                           .log_path = LogPath(name),
                           .inherited_fd = inherited_fd});
}

absl::Status Launcher::StartAll() {
  SP_ASSIGN_OR_RETURN(
      const std::string parameter_address,
      StartService(kParameterName,
                   {options_.parameter_program, "--dir", options_.run_dir + "/checkpoints"},
                   options_.parameter_listen));
  SP_ASSIGN_OR_RETURN(
      service_address_,
      StartService(kServiceName,
                   {options_.service_program, "--config", options_.run_dir + "/config.toml",
                    "--run-dir", options_.run_dir, "--cores", absl::StrCat(options_.num_cores),
                    "--parameter-service", parameter_address},
                   options_.service_listen));
  for (int64_t i = 0; i < options_.num_workers; ++i) {
    const std::string name = WorkerName(i);
    argv_[name] = {options_.worker_program, "--service", service_address_, "--worker-id", name};
    argv_[name].insert(argv_[name].end(), options_.tls_flags.begin(), options_.tls_flags.end());
    if (options_.use_gpus)
      argv_[name].insert(argv_[name].end(), {"--device-index", absl::StrCat(i)});
    SP_RETURN_IF_ERROR(Start(name));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> Launcher::StartService(const std::string& name,
                                                   std::vector<std::string> argv,
                                                   const std::string& listen) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) return absl::ErrnoToStatus(errno, "pipe2");
  FdCloser read_end(ends[0]), write_end(ends[1]);
  argv.insert(argv.end(), options_.tls_flags.begin(), options_.tls_flags.end());
  const std::vector<std::string> words = argv;
  argv.insert(argv.end(), {"--listen", listen, "--ready-fd", absl::StrCat(write_end.fd())});
  if (name == kServiceName && !options_.resume.empty())
    argv.insert(argv.end(), {"--resume", options_.resume});
  argv_[name] = std::move(argv);
  SP_RETURN_IF_ERROR(Start(name, write_end.fd()));
  write_end.Close();  // or the end of the service would not end the pipe
  SP_ASSIGN_OR_RETURN(const std::string port, WaitForPort(name, read_end.fd()));
  const std::string address = absl::StrCat(listen.substr(0, listen.rfind(':')), ":", port);
  argv_[name] = words;
  argv_[name].insert(argv_[name].end(), {"--listen", address});
  return Dialled(address);
}

std::vector<std::string> Launcher::StartAgain() {
  std::vector<std::string> sentences;
  const absl::Time now = absl::Now();
  while (!restarts_.empty() && restarts_.front() < now - absl::Hours(1)) restarts_.pop_front();
  for (; num_exits_seen_ < children_->exits().size(); ++num_exits_seen_) {
    const ChildExit exit = children_->exits()[num_exits_seen_];
    // A service that was told to stop left the run as it is.
    const bool was_told = exit.ok() && IsService(exit.name);
    if ((exit.signal == 0 && !was_told) || is_used_up()) continue;
    if (!Start(exit.name).ok()) continue;  // its end is a failure, then
    restarts_.push_back(now);
    replaced_.insert(num_exits_seen_);
    sentences.push_back(absl::StrCat(IsService(exit.name) ? "The " : "Worker ", Spoken(exit.name),
                                     " ", DescribeExit(exit), " and is started again (",
                                     restarts_.size(), " of at most ", options_.max_restarts,
                                     " times an hour)."));
  }
  return sentences;
}

bool Launcher::HasRunFor(const std::string& name, absl::Duration time) const {
  const auto started = started_.find(name);
  return started != started_.end() && children_->IsRunning(name) &&
         absl::Now() - started->second >= time;
}

absl::StatusOr<std::string> Launcher::WaitForPort(const std::string& name, int ready_fd) {
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
          absl::StrCat("the ", Spoken(name), " gave no port but \"", digits, "\""));
    }
    if (count == 0) {  // the service has gone, or closed its end without a word
      children_->Wait(absl::Seconds(1));
      return absl::UnavailableError(absl::StrCat("the ", Spoken(name), " did not start"));
    }
  }
  return absl::DeadlineExceededError(absl::StrCat("the ", Spoken(name), " did not start within ",
                                                  absl::FormatDuration(options_.start_timeout),
                                                  "; see ", LogPath(name)));
}

bool Launcher::workers_done() const {
  std::set<std::string> done;
  for (const ChildExit& exit : children_->exits()) {
    if (exit.ok() && !IsService(exit.name)) done.insert(exit.name);
  }
  return static_cast<int64_t>(done.size()) == options_.num_workers;
}

std::optional<LaunchFailure> Launcher::FindFailure(absl::string_view message) const {
  const auto place = [message](const ChildExit& exit) {  // of its name; npos = it is not named
    return message.find(absl::StrCat("\"", exit.name, "\""));
  };
  const auto found_it_failed = [](const ChildExit& exit) {  // it tells what the service said
    return exit.signal == 0 && exit.exit_code == kExitRunFailed && !IsService(exit.name);
  };
  // The smaller, the more to blame: a signal first, then a failure of its own.
  const auto rank = [&](const ChildExit& exit) {
    return std::make_tuple(exit.signal == 0, found_it_failed(exit),
                           exit.signal == 0 ? place(exit) : 0);
  };
  const ChildExit* blamed = nullptr;
  for (size_t i = 0; i < children_->exits().size(); ++i) {
    const ChildExit& exit = children_->exits()[i];
    if (replaced_.contains(i) || (exit.ok() && !IsService(exit.name))) continue;
    if (found_it_failed(exit) && place(exit) == absl::string_view::npos) continue;
    if (blamed == nullptr || rank(exit) < rank(*blamed)) blamed = &exit;
  }
  if (blamed == nullptr) return std::nullopt;
  const std::string log_path = LogPath(blamed->name);
  return LaunchFailure{
      .process = absl::StrCat(IsService(blamed->name) ? "" : "worker ", blamed->name),
      .how = absl::StrCat(DescribeExit(*blamed),
                          blamed->signal != 0 && options_.max_restarts > 0 && is_used_up()
                              ? absl::StrCat(", and recovery.max_restarts = ",
                                             options_.max_restarts, " an hour is used up")
                              : ""),
      .killed = blamed->signal != 0,
      .last_words = LastLines(log_path, kLastWords),
      .log_path = log_path};
}

}  // namespace smartpipe
