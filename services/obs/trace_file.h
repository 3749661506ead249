// The trace of one worker: what it did, instruction by instruction, on its own clock.
//
// One file per worker, RUN/trace-<worker>.jsonl, one JSON object per line:
//
//   {"trace": 1, "worker": "w0", "rank": 0, ...}                       header, always the first
//   {"plan": {"step": 0, "plan_epoch": 0, "frontier": 0, ...}}         in force from that step on
//   {"clock": [local_ns, offset_ns, error_ns]}
//   {"step": 12, "t_ns": T, "events": ["0RF0", 3, 40, "0F0", 40, 910]} name, start, end: us after T
//   {"span": "verdict_wait", "step": 12, "ns": [start, end]}
//   {"dropped": 3}                                                     last, only if lines are lost
//
// Times are nanoseconds of the worker's monotonic clock; clock lines tie it to the service's.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace smartpipe {

struct TraceHeader {
  std::string worker;
  int32_t rank = 0;
  int32_t num_ranks = 1;
  int64_t generation = 0;
  int32_t num_layers = 1;
  int32_t num_microbatches = 1;
  int64_t interval_steps = 1;
  int64_t batch_size = 1;
  bool run_ahead = true;
  int32_t num_cores = 0;  // that all workers share, each keeping one busy; 0 = each has its own
};

/// The plan in force from `step` on, as plain numbers.
struct TracePlan {
  int64_t step = 0;
  int64_t plan_epoch = 0;
  int32_t frontier = 0;
  std::vector<int32_t> cuts;           // first layers of stages 1..S-1
  std::vector<int32_t> stage_to_rank;  // [stage]
  std::vector<int32_t> credits;        // [edge]
  std::string schedule;
};

/// The service's clock read local_ns + offset_ns when the worker's read local_ns, give or take
/// error_ns.
struct ClockReading {
  int64_t local_ns = 0;
  int64_t offset_ns = 0;
  int64_t error_ns = 0;  // >= 0
};

/// One instruction as it prints ("0F3"). RF and RB: the wait for the message.
struct TraceEvent {
  std::string name;
  int64_t start_ns = 0, end_ns = 0;
};

/// All instructions of one step of one rank, in the order in which they ran.
struct TraceStep {
  int64_t step = 0;
  std::vector<TraceEvent> events;
};

/// What is not an instruction: "verdict_wait", "drain", "move", "report", "checkpoint", "evaluate",
/// "barrier". `step` is the next one to run.
struct TraceSpan {
  std::string name;
  int64_t step = 0;
  int64_t start_ns = 0, end_ns = 0;
};

/// A whole file. Everything in the order in which it was written.
struct Trace {
  TraceHeader header;
  std::vector<TracePlan> plans;
  std::vector<ClockReading> clock;
  std::vector<TraceStep> steps;
  std::vector<int64_t> step_lines;  // [step] number of its line, from 1
  std::vector<TraceSpan> spans;
  int64_t num_dropped = 0;  // lines that the writer could not keep up with or that a limit cut off
};

/// Nanoseconds of the machine's monotonic clock; the same in all processes of one machine.
int64_t MonotonicNs();

/// Writes a trace on a thread of its own: callers never wait for the disk.
///
/// Lines beyond the queue (kQueuedMax) or the file's limit (kBytesMax) are counted and dropped, and
/// so is everything after the first error of the disk, which is logged once: a trace never fails a
/// run.  Threads: Add and Close from any thread.  Cost: Add about 1 us; formatting happens on the
/// writer's thread.  Test: tests/unit/obs/trace_file_test.cc
class TraceWriter {
 public:
  static constexpr int kQueuedMax = 1024;
  static constexpr int64_t kBytesMax = int64_t{256} << 20;

  /// Creates or empties the file.  Errors: the system's reason with the path.
  static absl::StatusOr<std::unique_ptr<TraceWriter>> Create(const std::string& path,
                                                             const TraceHeader& header);
  ~TraceWriter();  // closes

  void Add(TracePlan plan);
  void Add(TraceStep step);
  void Add(TraceSpan span);
  void Add(ClockReading reading);
  /// Writes what is queued and ends the file. Idempotent; what is added later is dropped.
  void Close();

 private:
  struct Impl;
  explicit TraceWriter(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// Adds what took from start_ns until now; nothing when `trace` is null. `step`: the next to run.
void AddSpan(TraceWriter* trace, const char* name, int64_t step, int64_t start_ns);

/// Reads a file that may still be growing or end in the middle of a line (its worker was killed).
/// Errors: NOT_FOUND; INVALID_ARGUMENT with path and line for anything that is not such a file.
absl::StatusOr<Trace> ReadTrace(const std::string& path);

}  // namespace smartpipe
