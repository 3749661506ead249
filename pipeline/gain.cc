// What freezing and moving can gain; declared in partition.h.
#include <algorithm>
#include <cmath>

#include "absl/strings/str_format.h"
#include "pipeline/partition.h"

namespace smartpipe {

double SpeedupLimit(double phi, double rho) { return (1 + rho) / (1 + (1 - phi) * rho); }

double SpeedupLimit(const std::vector<LayerCost>& layers, LayerIndex frontier) {
  auto work_s = [&](int32_t first_trainable) {
    double sum_s = 0;
    for (int32_t i = 0; i < static_cast<int32_t>(layers.size()); ++i) {
      sum_s += layers[i].forward_s;
      if (i > first_trainable) sum_s += layers[i].input_grad_s;
      if (i >= first_trainable) sum_s += layers[i].weight_grad_s;
    }
    return sum_s;
  };
  const double left_s = work_s(frontier.value());
  return left_s > 0 ? work_s(0) / left_s : 1;
}

MoveVerdict MoveOrStay(const MoveTest& test) {
  const double gain_s = test.old_step_s - test.new_step_s;
  const double gain = test.old_step_s > 0 ? gain_s / test.old_step_s : 0;
  const double move_s = test.bytes_per_s > 0 ? test.moved_bytes / test.bytes_per_s : 0;
  const double cost_s = test.drain_s + test.refill_s + move_s;
  const double saved_s = gain_s * static_cast<double>(std::max<int64_t>(test.steps_left, 0));
  std::string reason = absl::StrFormat("step %.1f -> %.1f ms (%+.1f%%)", test.old_step_s * 1e3,
                                       test.new_step_s * 1e3, -gain * 100);
  // Written so that a NaN anywhere stays.
  if (!(gain_s > 0)) return {false, reason + ", nothing to gain"};
  if (!(gain >= test.min_gain)) {
    return {false, absl::StrFormat("%s, less than the %.1f%% that are worth a move", reason,
                                   test.min_gain * 100)};
  }
  absl::StrAppendFormat(&reason, ", %s %.2f s over %d steps, costs %.2f s",
                        saved_s > cost_s ? "saves" : "would save only", saved_s,
                        std::max<int64_t>(test.steps_left, 0), cost_s);
  return {saved_s > cost_s, reason};
}

}  // namespace smartpipe
