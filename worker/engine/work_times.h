// What pieces of work cost: on the CPU this thread's time, on a device the time between two events
// of the stream.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "ATen/core/Tensor.h"
#include "c10/core/Event.h"
#include "worker/engine/stopwatch.h"

namespace smartpipe {

/// A point in the work of a device's current stream, with time. It outlives nothing of Torch's.
using WorkEvent = std::shared_ptr<c10::Event>;
/// Records one.  Cost: some microseconds of the host, nothing waits.
WorkEvent RecordEvent(at::Device device);

/// Durations of one kind of work since the last Take, in order.
///
/// On a device at most kEventsMax are kept: events are not for nothing, and the median of so many
/// is good enough.  Threads: one.
class WorkTimes {
 public:
  static constexpr size_t kEventsMax = 32;
  /// False when another duration of a device would not be kept.
  bool wants() const { return events_.size() < kEventsMax; }
  void Add(double seconds) { seconds_.push_back(seconds); }
  void Add(WorkEvent start, WorkEvent end) {
    events_.emplace_back(std::move(start), std::move(end));
  }
  /// Seconds; waits for the device to get to the last one.
  std::vector<double> Take();

 private:
  std::vector<double> seconds_;
  std::vector<std::pair<WorkEvent, WorkEvent>> events_;
};

/// Measures one piece of work after the other. On a device only if `times` wants more.
class WorkWatch {
 public:
  WorkWatch(at::Device device, const WorkTimes& times) : device_(device) {
    if (device.is_cpu()) {
      start_ns_ = WorkNs();
    } else if (times.wants()) {
      start_ = RecordEvent(device);
    }
  }
  /// Adds what was done since construction or the last lap.
  void Lap(WorkTimes& times) {
    if (device_.is_cpu()) {
      const int64_t now_ns = WorkNs();
      times.Add(static_cast<double>(now_ns - std::exchange(start_ns_, now_ns)) * 1e-9);
    } else if (start_ != nullptr) {
      WorkEvent now = RecordEvent(device_);
      times.Add(std::exchange(start_, now), now);
    }
  }

 private:
  const at::Device device_;
  int64_t start_ns_ = 0;
  WorkEvent start_;
};

}  // namespace smartpipe
