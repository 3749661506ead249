#include "worker/engine/work_times.h"

#include "c10/core/impl/VirtualGuardImpl.h"

namespace smartpipe {

WorkEvent RecordEvent(at::Device device) {
  // Torch's default makes events without time.
  auto event = std::make_shared<c10::Event>(device.type(), c10::EventFlag::BACKEND_DEFAULT);
  event->record(c10::impl::VirtualGuardImpl(device.type()).getStream(device));
  return event;
}

std::vector<double> WorkTimes::Take() {
  std::vector<double> seconds = std::exchange(seconds_, {});
  for (const auto& [start, end] : std::exchange(events_, {})) {
    end->synchronize();
    seconds.push_back(start->elapsedTime(*end) * 1e-3);
  }
  return seconds;
}

}  // namespace smartpipe
