#include "tests/testutil/process.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "gtest/gtest.h"

namespace smartpipe::testutil {
namespace {

/// Fields of /proc/PID/stat behind the command's closing parenthesis: state, ppid, ...
bool ReadStat(pid_t pid, char& state, pid_t& parent) {
  const std::string text = ReadFile(absl::StrCat("/proc/", pid, "/stat"));
  const size_t end = text.rfind(')');
  if (end == std::string::npos) return false;
  int parsed_parent = 0;
  if (std::sscanf(text.c_str() + end + 1, " %c %d", &state, &parsed_parent) != 2) return false;
  parent = parsed_parent;
  return true;
}

}  // namespace

Process::Process(const std::vector<std::string>& argv) {
  char path[] = "/tmp/smartpipe-output-XXXXXX";
  const int output = mkstemp(path);
  output_path_ = path;
  std::vector<char*> arguments;
  for (const std::string& word : argv) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  pid_ = fork();
  if (pid_ == 0) {
    setpgid(0, 0);
    dup2(open("/dev/null", O_RDONLY), STDIN_FILENO);
    dup2(output, STDOUT_FILENO);
    dup2(output, STDERR_FILENO);
    close(output);
    execv(arguments[0], arguments.data());
    dprintf(STDERR_FILENO, "cannot start %s\n", arguments[0]);
    _exit(127);
  }
  setpgid(pid_, pid_);
  close(output);
}

Process::~Process() {
  if (!exit_code_) {
    kill(-pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  unlink(output_path_.c_str());
}

std::optional<int> Process::Wait(absl::Duration timeout) {
  if (exit_code_) return exit_code_;
  const int pidfd = static_cast<int>(syscall(SYS_pidfd_open, pid_, 0));
  pollfd entry{pidfd, POLLIN, 0};
  const int ready = poll(&entry, 1, static_cast<int>(absl::ToInt64Milliseconds(timeout)));
  close(pidfd);
  if (ready != 1) return std::nullopt;
  int status = 0;
  waitpid(pid_, &status, 0);
  exit_code_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return exit_code_;
}

void Process::Signal(int signal) { kill(pid_, signal); }

std::string Process::output() const { return ReadFile(output_path_); }

std::vector<ChildInfo> ChildrenOf(pid_t pid) {
  std::vector<ChildInfo> children;
  DIR* proc = opendir("/proc");
  while (dirent* entry = readdir(proc)) {
    int candidate = 0;
    if (!absl::SimpleAtoi(entry->d_name, &candidate)) continue;
    char state = 0;
    pid_t parent = 0;
    if (!ReadStat(candidate, state, parent) || parent != pid || state == 'Z') continue;
    std::string command_line = ReadFile(absl::StrCat("/proc/", candidate, "/cmdline"));
    for (char& c : command_line) c = c == '\0' ? ' ' : c;
    children.push_back({candidate, std::move(command_line)});
  }
  closedir(proc);
  return children;
}

bool IsAlive(pid_t pid) {
  char state = 0;
  pid_t parent = 0;
  return ReadStat(pid, state, parent) && state != 'Z';
}

bool Eventually(const std::function<bool()>& condition, absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  while (!condition()) {
    if (absl::Now() > deadline) return false;
    poll(nullptr, 0, 5);
  }
  return true;
}

int AnnouncedPort(Process& process) {
  int port = 0;
  EXPECT_TRUE(Eventually(
      [&] {
        for (absl::string_view line : absl::StrSplit(process.output(), '\n')) {
          if (absl::SimpleAtoi(line, &port)) return true;
        }
        return process.Wait(absl::ZeroDuration()).has_value();
      },
      absl::Seconds(20)));
  EXPECT_GT(port, 0) << process.output();
  return port;
}

TempDir::TempDir() {
  char path[] = "/tmp/smartpipe-test-XXXXXX";
  path_ = mkdtemp(path);
}

TempDir::~TempDir() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

void WriteFile(const std::string& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}

std::string Binary(const std::string& name) {
  const char* folder = getenv("SMARTPIPE_BIN_DIR");
  return absl::StrCat(folder != nullptr ? folder : "build/release/bin", "/", name);
}

std::string SourceFile(const std::string& name) {
  const char* folder = getenv("SMARTPIPE_SOURCE_DIR");
  return absl::StrCat(folder != nullptr ? folder : ".", "/", name);
}

}  // namespace smartpipe::testutil
