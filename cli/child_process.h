// Child processes that never outlive their parent, and one place to wait for them and for Ctrl-C.
#pragma once

#include <signal.h>
#include <sys/types.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace smartpipe {

struct ChildSpec {
  std::string name;               // for people: "w0"
  std::vector<std::string> argv;  // argv[0] is the program's path
  std::string log_path;           // stdout and stderr are appended to it; "" = both to our stderr
  int inherited_fd = -1;          // stays open in the child under the same number; -1 = none
};

/// How a process ended.
struct ChildExit {
  std::string name;
  int exit_code = 0;
  int signal = 0;  // not 0: killed by this signal
  bool ok() const { return exit_code == 0 && signal == 0; }
};

/// "exited with code 3", "was killed by SIGKILL (signal 9)".
std::string DescribeExit(const ChildExit& exit);

/// The last lines of a text file, oldest first, at most `num_lines`, each cut to 400 bytes; empty
/// if there are none.
std::vector<std::string> LastLines(const std::string& path, int num_lines);

/// The children of this process, and the signals that end it.
///
/// Children stay in the launcher's process group, ignore the Ctrl-C of a terminal, which is for the
/// launcher to act on, read nothing from stdin, and are killed by the kernel when the thread that
/// started them ends, however it ends. From Create on, SIGINT, SIGTERM,
/// SIGHUP and SIGCHLD are blocked in the calling thread and read by Wait; the destructor kills what
/// still runs and restores the signal mask. Threads: one, the process's main thread, and before
/// others start (they inherit the mask). Test: tests/unit/cli/child_process_test.cc
class ChildProcesses {
 public:
  static absl::StatusOr<std::unique_ptr<ChildProcesses>> Create();
  ~ChildProcesses();
  ChildProcesses(const ChildProcesses&) = delete;
  ChildProcesses& operator=(const ChildProcesses&) = delete;

  /// Errors: NOT_FOUND when the program does not exist or cannot be run, with its path; the
  /// system's reason otherwise.
  absl::Status Start(const ChildSpec& spec);

  /// Sleeps until a child ends, a stop signal comes, `readable_fd` (-1 = none) can be read, or
  /// `timeout` is over. Which of them it was is told by the methods below.
  void Wait(absl::Duration timeout, int readable_fd = -1);

  /// The signal that asked this process to stop first; 0 = none so far.
  int stop_signal() const { return stop_signal_; }
  int num_stop_signals() const { return num_stop_signals_; }
  /// Those that have ended, in the order in which they were seen.
  const std::vector<ChildExit>& exits() const { return exits_; }
  size_t num_running() const;
  bool IsRunning(const std::string& name) const;
  /// SIGKILL, to the running child of this name.
  void Kill(const std::string& name);

  /// Asks all children to end, kills those that have not after `patience`. Returns when all have
  /// gone.
  void StopAll(absl::Duration patience);

 private:
  struct Child {
    std::string name;
    pid_t pid = -1;
    bool running = false;
  };

  ChildProcesses() = default;
  void Signal(int signal);
  void ReadSignals();
  void Reap();

  std::vector<Child> children_;
  std::vector<ChildExit> exits_;
  int signal_fd_ = -1;
  int stop_signal_ = 0;
  int num_stop_signals_ = 0;
  sigset_t old_mask_;
};

}  // namespace smartpipe
