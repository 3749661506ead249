// The processes of a run on this machine: one parameter_service, one freeze_service and the
// stage_workers.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "cli/child_process.h"

namespace smartpipe {

struct LaunchOptions {
  std::string parameter_program;
  std::string service_program;
  std::string worker_program;
  std::string run_dir;    // has config.toml and logs/; checkpoints/ is made in it
  int64_t num_cores = 0;  // of this machine, one for each compute thread; 0 = enough
  int64_t num_workers = 1;
  bool use_gpus = false;  // each worker takes the GPU of its number, modulo how many there are
  std::string service_listen = "127.0.0.1:0";        // HOST:PORT; port 0 = any free one
  std::string parameter_listen = "127.0.0.1:0";      // likewise
  std::vector<std::string> tls_flags;                // of every process; none = plaintext
  std::string resume;                                // of the freeze service; "" = a new run
  int64_t max_restarts = 0;                          // of killed processes, within an hour
  absl::Duration start_timeout = absl::Seconds(30);  // until a service listens
};

/// Why a run ended before its time.
struct LaunchFailure {
  std::string process;                  // "worker w1"
  std::string how;                      // "was killed by SIGKILL (signal 9)"
  bool killed = false;                  // by a signal
  std::vector<std::string> last_words;  // last lines of that process's log
  std::string log_path;                 // empty = no process is to blame
};

/// Starts the processes, watches them, starts killed ones again, stops them. None outlives this
/// object, nor this process.
///
/// Threads: as ChildProcesses.  Test: tests/unit/cli/launcher_test.cc
class Launcher {
 public:
  /// Errors: NOT_FOUND when a program is missing; the system's reason otherwise. Starts nothing
  /// yet.
  static absl::StatusOr<std::unique_ptr<Launcher>> Create(const LaunchOptions& options);

  /// Starts the parameter service, then the freeze service, waiting for the port of each, then the
  /// workers. An error, or a stop signal (CANCELLED), leaves processes to StopAll.
  absl::Status StartAll();

  /// Sleeps until a process ends, a stop signal comes, or `timeout` is over.
  void Wait(absl::Duration timeout) { children_->Wait(timeout); }

  int stop_signal() const { return children_->stop_signal(); }
  int num_stop_signals() const { return children_->num_stop_signals(); }
  /// Starts again what was killed by a signal since the last call, and services that were told to
  /// stop, on the same port, as
  /// often as max_restarts allows; beyond it a killed process is a failure. Returns a sentence for
  /// each that was started.
  std::vector<std::string> StartAgain();
  /// SIGKILL, to a process that stands still.
  void Kill(const std::string& name) { children_->Kill(name); }
  /// True when a process of this name has run for `time`.
  bool HasRunFor(const std::string& name, absl::Duration time) const;
  /// True when all workers have ended well.
  bool workers_done() const;
  /// Describes the process whose end ended the run (not one that was started again): a killed one
  /// before a failed one, then the one whose quoted name ("w1") comes first in `message`, the
  /// service's sentence about the run's end (the others fail because the run ended), then the first
  /// seen. None if none has failed; a service's own end counts as failure, a worker's that found
  /// the run failed (kExitRunFailed) only where `message` names it.
  std::optional<LaunchFailure> FindFailure(absl::string_view message = "") const;

  /// SIGTERM, after 2.5 s SIGKILL; returns when all have gone.
  void StopAll() { children_->StopAll(absl::Milliseconds(2500)); }

  /// "127.0.0.1:1234", where processes of this machine reach the freeze service; after StartAll.
  const std::string& service_address() const { return service_address_; }

 private:
  explicit Launcher(const LaunchOptions& options) : options_(options) {}
  absl::Status Start(const std::string& name, int inherited_fd = -1);
  bool is_used_up() const {
    return static_cast<int64_t>(restarts_.size()) >= options_.max_restarts;
  }
  std::string LogPath(const std::string& name) const;
  /// Starts a program that listens on a port of its choice. Returns the address to dial.
  absl::StatusOr<std::string> StartService(const std::string& name, std::vector<std::string> argv,
                                           const std::string& listen);
  absl::StatusOr<std::string> WaitForPort(const std::string& name, int ready_fd);

  LaunchOptions options_;
  std::unique_ptr<ChildProcesses> children_;
  std::string service_address_;
  std::map<std::string, std::vector<std::string>> argv_;  // by name, of a start in the middle
  std::map<std::string, absl::Time> started_;             // by name, the newest process
  size_t num_exits_seen_ = 0;                             // by StartAgain
  std::set<size_t> replaced_;                             // exits that StartAgain made good
  std::deque<absl::Time> restarts_;                       // within the last hour
};

}  // namespace smartpipe
