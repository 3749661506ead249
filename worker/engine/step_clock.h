// When the instructions of a step end, and how far the thread that starts them may be ahead of the
// device that runs them.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "ATen/core/Tensor.h"
#include "pipeline/instruction.h"
#include "services/base/ids.h"
#include "services/obs/trace_file.h"
#include "worker/engine/work_times.h"

namespace smartpipe {

/// Records the instructions of each step into a trace. On the CPU an instruction has ended when it
/// is marked; on a device its end is an event, which is put on the clock of traces when the device
/// has got there.
///
/// On a device Begin also waits until it has ended all but one of the steps before: so a rank that
/// needs no number from its device does not start work without end, whose time-outs would mean
/// nothing.  Threads: one.
class StepClock {
 public:
  /// `trace` may be null: nothing is recorded then.
  StepClock(TraceWriter* trace, at::Device device) : trace_(trace), device_(device) {}

  /// A step begins.
  void Begin(Step step);
  /// What was done since the last mark was this instruction.
  void Mark(const Instruction& instruction);
  /// The step has been started in full (CPU: done).
  void End();
  /// Waits until the device has done all that was started; nothing to do on the CPU.
  void Finish();

 private:
  static constexpr size_t kStepsAheadMax = 2;
  struct Started {
    Step step;
    std::vector<std::pair<std::string, WorkEvent>> marks;  // the first one is the step's begin
    WorkEvent end;
  };
  // Waits for the oldest started step and records it.
  void Resolve();

  TraceWriter* const trace_;
  const at::Device device_;
  // CPU.
  int64_t mark_ns_ = 0;
  TraceStep traced_;
  // Device. `anchor_` happened at `anchor_ns_`.
  WorkEvent anchor_;
  double anchor_ns_ = 0;
  Started current_;
  std::deque<Started> started_;
};

}  // namespace smartpipe
