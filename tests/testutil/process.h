// Real processes in tests: start one, read what it prints, wait for it with a deadline, see its
// children.
#pragma once

#include <sys/types.h>

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"

namespace smartpipe::testutil {

/// A child process in its own process group, its stdout and stderr in one file. The destructor
/// kills the whole group. Threads: one.
class Process {
 public:
  explicit Process(const std::vector<std::string>& argv);
  ~Process();
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  pid_t pid() const { return pid_; }
  /// Exit code, 128 + signal when killed, nothing when still running after `timeout`.
  std::optional<int> Wait(absl::Duration timeout);
  void Signal(int signal);
  /// Everything printed so far.
  std::string output() const;

 private:
  pid_t pid_ = -1;
  std::string output_path_;
  std::optional<int> exit_code_;
};

/// The port that a service prints on a line of its own (--ready-fd 1); 0, and a failed test, when
/// it ends or 20 s pass without.
int AnnouncedPort(Process& process);

/// Live processes whose parent is `pid`, with their command line ("stage_worker --worker-id w0
/// ...").
struct ChildInfo {
  pid_t pid;
  std::string command_line;
};
std::vector<ChildInfo> ChildrenOf(pid_t pid);
/// True while the process exists and is not a zombie.
bool IsAlive(pid_t pid);
/// Waits until `condition` holds, at most `timeout`; watches with short poll intervals of the
/// kernel's timer, for conditions of other processes that offer nothing to wait on. True when it
/// held.
bool Eventually(const std::function<bool()>& condition, absl::Duration timeout);

/// A fresh folder that is deleted with the object.
class TempDir {
 public:
  TempDir();
  ~TempDir();
  const std::string& path() const { return path_; }
  std::string File(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

std::string ReadFile(const std::string& path);
void WriteFile(const std::string& path, const std::string& text);

/// Path of a program of this build.
std::string Binary(const std::string& name);
/// Path of a file of the source tree.
std::string SourceFile(const std::string& name);

}  // namespace smartpipe::testutil
