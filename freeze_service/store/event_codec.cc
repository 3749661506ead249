#include "freeze_service/store/event_codec.h"

#include <bit>
#include <concepts>
#include <cstdint>
#include <map>
#include <optional>
#include <type_traits>
#include <utility>
#include <variant>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "services/base/status_macros.h"

namespace smartpipe {
namespace {

constexpr uint8_t kVersion = 6;

// The bytes of kinds are the positions in the variants: these orders are part of the format.
template <size_t kIndex, typename Variant, typename T>
inline constexpr bool kIsAt = std::is_same_v<std::variant_alternative_t<kIndex, Variant>, T>;
static_assert(std::variant_size_v<Event> == 8 && kIsAt<0, Event, WorkerJoined> &&
              kIsAt<1, Event, IntervalReported> && kIsAt<2, Event, WorkerLost> &&
              kIsAt<3, Event, WorkerFailed> && kIsAt<4, Event, WorkerFinished> &&
              kIsAt<5, Event, OrderGiven> && kIsAt<6, Event, FaultReported> &&
              kIsAt<7, Event, RunResumed>);
static_assert(std::variant_size_v<Decision> == 6 && kIsAt<0, Decision, StartGeneration> &&
              kIsAt<1, Decision, Verdict> && kIsAt<2, Decision, EndRun> &&
              kIsAt<3, Decision, EndGeneration> && kIsAt<4, Decision, OrderAccepted> &&
              kIsAt<5, Decision, WorkerDrained>);
static_assert(std::variant_size_v<Order> == 9 && kIsAt<0, Order, FreezeLayers> &&
              kIsAt<1, Order, UnfreezeLayers> && kIsAt<2, Order, RebalanceStages> &&
              kIsAt<3, Order, ChangePolicy> && kIsAt<4, Order, PauseRun> &&
              kIsAt<5, Order, ResumeRun> && kIsAt<6, Order, TakeCheckpoint> &&
              kIsAt<7, Order, DrainWorker> && kIsAt<8, Order, StopRun>);

// ---- Fields -------------------------------------------------------------------------------------
// Each(value, f) calls f with all fields of a struct, in order; for both directions. The structured
// bindings do not compile when a field was added or removed.

template <typename T, typename U>
concept Same = std::same_as<std::remove_const_t<T>, U>;

void Each(Same<LayerCost> auto& value, auto&& f) {
  auto& [forward_s, input_grad_s, weight_grad_s, optimize_s, output_bytes, param_bytes, state_bytes,
         activation_bytes] = value;
  f(forward_s, input_grad_s, weight_grad_s, optimize_s, output_bytes, param_bytes, state_bytes,
    activation_bytes);
}
void Each(Same<LayerInfo> auto& value, auto&& f) {
  auto& [name, cost] = value;
  f(name, cost);
}
void Each(Same<LayerStatistics> auto& value, auto&& f) {
  auto& [layer, frozen, has_previous, norm, previous_norm, difference_norm, norm2_mean,
         previous_norm2_mean, num_microbatches, num_nonfinite_steps] = value;
  f(layer, frozen, has_previous, norm, previous_norm, difference_norm, norm2_mean,
    previous_norm2_mean, num_microbatches, num_nonfinite_steps);
}
void Each(Same<RunLength> auto& value, auto&& f) {
  auto& [num_steps, steps_per_epoch, interval_steps] = value;
  f(num_steps, steps_per_epoch, interval_steps);
}
void Each(Same<WorkerJoined> auto& value, auto&& f) {
  auto& [worker, incarnation, length, layers, checkpoints] = value;
  f(worker, incarnation, length, layers, checkpoints);
}
void Each(Same<ExecutionOptions> auto& value, auto&& f) {
  auto& [num_stages, stages_per_worker, schedule, run_ahead, num_cores, cuts, rebalance_enabled,
         rebalance_min_gain] = value;
  f(num_stages, stages_per_worker, schedule, run_ahead, num_cores, cuts, rebalance_enabled,
    rebalance_min_gain);
}
void Each(Same<IntervalReported> auto& value, auto&& f) {
  auto& [worker, generation, plan_epoch, interval, statistics, costs, step_s, verdict_wait_s,
         switch_drain_s, switch_move_s, switch_moved_bytes, link_bytes_per_s, link_latency_s] =
      value;
  f(worker, generation, plan_epoch, interval, statistics, costs, step_s, verdict_wait_s,
    switch_drain_s, switch_move_s, switch_moved_bytes, link_bytes_per_s, link_latency_s);
}
void Each(Same<WorkerLost> auto& value, auto&& f) {
  auto& [worker, incarnation, how] = value;
  f(worker, incarnation, how);
}
void Each(Same<WorkerFailed> auto& value, auto&& f) {
  auto& [worker, generation, message] = value;
  f(worker, generation, message);
}
void Each(Same<WorkerFigures> auto& value, auto&& f) {
  auto& [train_s, verdict_wait_s, switch_s, report_s, checkpoint_s, checkpoint_bytes_written,
         checkpoint_bytes_shared, weights_sha256] = value;
  f(train_s, verdict_wait_s, switch_s, report_s, checkpoint_s, checkpoint_bytes_written,
    checkpoint_bytes_shared, weights_sha256);
}
void Each(Same<WorkerFinished> auto& value, auto&& f) {
  auto& [worker, generation, result] = value;
  f(worker, generation, result);
}
void Each(Same<FreezeLayers> auto& value, auto&& f) {
  auto& [frontier] = value;
  f(frontier);
}
void Each(Same<UnfreezeLayers> auto& value, auto&& f) {
  auto& [frontier] = value;
  f(frontier);
}
void Each(Same<RebalanceStages> auto& value, auto&& f) {
  auto& [cuts] = value;
  f(cuts);
}
void Each(Same<PolicyOptions> auto& value, auto&& f) {
  auto& [policy, tau, lambda_max, warmup_intervals, hits, min_trainable, fixed_layers, schedule] =
      value;
  f(policy, tau, lambda_max, warmup_intervals, hits, min_trainable, fixed_layers, schedule);
}
void Each(Same<ChangePolicy> auto& value, auto&& f) {
  auto& [policy, tau, lambda_max, warmup_intervals, hits, min_trainable, fixed_layers, schedule] =
      value;
  f(policy, tau, lambda_max, warmup_intervals, hits, min_trainable, fixed_layers, schedule);
}
void Each(Same<PauseRun> auto&, auto&& f) { f(); }
void Each(Same<ResumeRun> auto&, auto&& f) { f(); }
void Each(Same<TakeCheckpoint> auto&, auto&& f) { f(); }
void Each(Same<DrainWorker> auto& value, auto&& f) {
  auto& [worker] = value;
  f(worker);
}
void Each(Same<StopRun> auto& value, auto&& f) {
  auto& [at_once] = value;
  f(at_once);
}
void Each(Same<OrderGiven> auto& value, auto&& f) {
  auto& [request_id, who, why, step, order] = value;
  f(request_id, who, why, step, order);
}
void Each(Same<OrderRecord> auto& value, auto&& f) {
  auto& [given, boundary, step, done] = value;
  f(given, boundary, step, done);
}
void Each(Same<Orders> auto& value, auto&& f) {
  auto& [records, paused_at, keep_trainable, stop_why, leaving, drained] = value;
  f(records, paused_at, keep_trainable, stop_why, leaving, drained);
}
void Each(Same<FaultReported> auto& value, auto&& f) {
  auto& [worker, generation, message] = value;
  f(worker, generation, message);
}
void Each(Same<RunResumed> auto& value, auto&& f) {
  auto& [execution, step] = value;
  f(execution, step);
}
void Each(Same<Plan> auto& value, auto&& f) {
  auto& [plan_epoch, effective_step, frontier, cuts, placement, schedule, credits] = value;
  f(plan_epoch, effective_step, frontier, cuts, placement, schedule, credits);
}
void Each(Same<LayerMove> auto& value, auto&& f) {
  auto& [layer, from_stage, to_stage] = value;
  f(layer, from_stage, to_stage);
}
void Each(Same<StartGeneration> auto& value, auto&& f) {
  auto& [generation, members, plan, step] = value;
  f(generation, members, plan, step);
}
void Each(Same<Verdict> auto& value, auto&& f) {
  auto& [boundary, step, plan, reason, frontier_reason, stop, checkpoint, frontier, cuts,
         plan_epoch, moves, moved_bytes, predicted_old_step_s, predicted_step_s, even_step_s, eta] =
      value;
  f(boundary, step, plan, reason, frontier_reason, stop, checkpoint, frontier, cuts, plan_epoch,
    moves, moved_bytes, predicted_old_step_s, predicted_step_s, even_step_s, eta);
}
void Each(Same<EndRun> auto& value, auto&& f) {
  auto& [success, reason] = value;
  f(success, reason);
}
void Each(Same<EndGeneration> auto& value, auto&& f) {
  auto& [generation, reason] = value;
  f(generation, reason);
}
void Each(Same<OrderAccepted> auto& value, auto&& f) {
  auto& [request_id, boundary, step] = value;
  f(request_id, boundary, step);
}
void Each(Same<WorkerDrained> auto& value, auto&& f) {
  auto& [worker, reason] = value;
  f(worker, reason);
}
void Each(Same<RunHistory> auto& value, auto&& f) {
  auto& [first_step, start_plan, num_recoveries, last_fault, resumed_from, restart_times_us] =
      value;
  f(first_step, start_plan, num_recoveries, last_fault, resumed_from, restart_times_us);
}
void Each(Same<WorkerProgress> auto& value, auto&& f) {
  auto& [next_interval, result] = value;
  f(next_interval, result);
}
void Each(Same<Evidence> auto& value, auto&& f) {
  auto& [layers, interval, eta_history, no_evidence, drain_s, bytes_per_s, link_bytes_per_s,
         link_latency_s] = value;
  f(layers, interval, eta_history, no_evidence, drain_s, bytes_per_s, link_bytes_per_s,
    link_latency_s);
}
void Each(Same<CoordinatorState> auto& value, auto&& f) {
  auto& [run_state, end_reason, generation, execution, length, history, is_resuming, resume_step,
         policy, orders, members, progress, plan, evidence, next_to_learn, num_proposals, reports] =
      value;
  f(run_state, end_reason, generation, execution, length, history, is_resuming, resume_step, policy,
    orders, members, progress, plan, evidence, next_to_learn, num_proposals, reports);
}

// ---- Writing ------------------------------------------------------------------------------------

class Writer {
 public:
  std::string Take() { return std::move(bytes_); }

  void Unsigned(uint64_t value, int num_bytes) {
    for (int i = 0; i < num_bytes; ++i) bytes_ += static_cast<char>(value >> (8 * i));
  }
  void Put(bool value) { Unsigned(value ? 1 : 0, 1); }
  void Put(int32_t value) { Unsigned(static_cast<uint32_t>(value), 4); }
  void Put(int64_t value) { Unsigned(static_cast<uint64_t>(value), 8); }
  void Put(double value) { Unsigned(std::bit_cast<uint64_t>(value), 8); }
  void Put(const std::string& value) {
    Unsigned(value.size(), 4);
    bytes_ += value;
  }
  void Put(RunState value) { Unsigned(static_cast<uint64_t>(value), 1); }
  void Put(const WorkerId& value) { Put(value.value()); }
  template <typename Tag, typename Rep>
  void Put(StrongInt<Tag, Rep> value) {
    Put(value.value());
  }
  template <typename T>
  void Put(const std::vector<T>& values) {
    Unsigned(values.size(), 4);
    for (const T& value : values) Put(value);
  }
  template <typename Key, typename T>
  void Put(const std::map<Key, T>& values) {
    Unsigned(values.size(), 4);
    for (const auto& [key, value] : values) {
      Put(key);
      Put(value);
    }
  }
  template <typename First, typename Second>
  void Put(const std::pair<First, Second>& value) {
    Put(value.first);
    Put(value.second);
  }
  template <typename T>
  void Put(const std::optional<T>& value) {
    Put(value.has_value());
    if (value.has_value()) Put(*value);
  }
  template <typename... Ts>
  void Put(const std::variant<Ts...>& value) {
    Unsigned(value.index(), 1);
    std::visit([this](const auto& alternative) { Put(alternative); }, value);
  }
  template <typename T>
  requires requires(const T& value) {
    Each(value, [](const auto&...) {});
  }
  void Put(const T& value) {
    Each(value, [this](const auto&... fields) { (Put(fields), ...); });
  }

 private:
  std::string bytes_;
};

// ---- Reading ------------------------------------------------------------------------------------

/// After a mistake nothing more is read and ok() is false.
class Reader {
 public:
  explicit Reader(absl::string_view bytes) : bytes_(bytes) {}

  bool ok() const { return ok_; }
  bool at_end() const { return bytes_.empty(); }

  uint64_t Unsigned(size_t num_bytes) {
    if (bytes_.size() < num_bytes) ok_ = false;
    if (!ok_) return 0;
    uint64_t value = 0;
    for (size_t i = 0; i < num_bytes; ++i) {
      value |= static_cast<uint64_t>(static_cast<uint8_t>(bytes_[i])) << (8 * i);
    }
    bytes_.remove_prefix(num_bytes);
    return value;
  }
  void Get(bool& value) {
    const uint64_t byte = Unsigned(1);
    if (byte > 1) ok_ = false;
    value = byte == 1;
  }
  void Get(int32_t& value) { value = static_cast<int32_t>(Unsigned(4)); }
  void Get(int64_t& value) { value = static_cast<int64_t>(Unsigned(8)); }
  void Get(double& value) { value = std::bit_cast<double>(Unsigned(8)); }
  void Get(std::string& value) {
    const size_t size = Length();
    value = std::string(bytes_.substr(0, size));
    bytes_.remove_prefix(size);
  }
  void Get(RunState& value) {
    const uint64_t byte = Unsigned(1);
    if (byte > static_cast<uint64_t>(RunState::kFailed)) ok_ = false;
    value = ok_ ? static_cast<RunState>(byte) : RunState::kWaiting;
  }
  void Get(WorkerId& value) {
    std::string text;
    Get(text);
    value = WorkerId(std::move(text));
  }
  template <typename Tag, typename Rep>
  void Get(StrongInt<Tag, Rep>& value) {
    Rep number = 0;
    Get(number);
    value = StrongInt<Tag, Rep>(number);
  }
  template <typename T>
  void Get(std::vector<T>& values) {
    const size_t size = Length();
    values.clear();
    for (size_t i = 0; i < size && ok_; ++i) Get(values.emplace_back());
  }
  template <typename Key, typename T>
  void Get(std::map<Key, T>& values) {
    const size_t size = Length();
    values.clear();
    for (size_t i = 0; i < size && ok_; ++i) {
      Key key;
      Get(key);
      if (!values.empty() && !(values.rbegin()->first < key)) ok_ = false;  // as written: ascending
      if (ok_) Get(values[key]);
    }
  }
  template <typename First, typename Second>
  void Get(std::pair<First, Second>& value) {
    Get(value.first);
    Get(value.second);
  }
  template <typename T>
  void Get(std::optional<T>& value) {
    bool has_value = false;
    Get(has_value);
    value.reset();
    if (has_value) Get(value.emplace());
  }
  template <typename... Ts>
  void Get(std::variant<Ts...>& value) {
    const uint64_t kind = Unsigned(1);
    uint64_t position = 0;
    const bool known = ((kind == position++ && (Get(value.template emplace<Ts>()), true)) || ...);
    if (!known) ok_ = false;
  }
  template <typename T>
  requires requires(T& value) {
    Each(value, [](auto&...) {});
  }
  void Get(T& value) {
    Each(value, [this](auto&... fields) { (Get(fields), ...); });
  }

 private:
  // Of a list or a string: an element has at least one byte, so a length is never larger than what
  // is left, and damage cannot ask for more memory than that.
  size_t Length() {
    const size_t size = Unsigned(4);
    if (size > bytes_.size()) ok_ = false;
    return ok_ ? size : 0;
  }

  absl::string_view bytes_;
  bool ok_ = true;
};

template <typename T>
std::string Encode(const T& value) {
  Writer writer;
  writer.Unsigned(kVersion, 1);
  writer.Put(value);
  return writer.Take();
}

template <typename T>
absl::StatusOr<T> Decode(absl::string_view bytes, absl::string_view what) {
  Reader reader(bytes);
  const uint64_t version = reader.Unsigned(1);
  if (reader.ok() && version != kVersion) {
    return absl::FailedPreconditionError(
        absl::StrCat(what, " is written in version ", version, "; this program reads version ",
                     int{kVersion}, ": use the program that wrote it"));
  }
  T value;
  reader.Get(value);
  if (reader.ok() && reader.at_end()) return value;
  return absl::DataLossError(absl::StrCat(
      what, " cannot be read: ",
      reader.ok() ? "bytes are left over" : "it ends early or holds a value that is none"));
}

}  // namespace

std::string EncodeEvent(const Event& event) { return Encode(event); }

std::string EncodeState(const CoordinatorState& state) { return Encode(state); }

std::string EncodeDecisions(const std::vector<Decision>& decisions) { return Encode(decisions); }

absl::StatusOr<Event> DecodeEvent(absl::string_view bytes) {
  return Decode<Event>(bytes, "the event");
}

absl::StatusOr<std::vector<Decision>> DecodeDecisions(absl::string_view bytes) {
  return Decode<std::vector<Decision>>(bytes, "the list of decisions");
}

absl::StatusOr<CoordinatorState> DecodeState(absl::string_view bytes) {
  return Decode<CoordinatorState>(bytes, "the snapshot");
}

}  // namespace smartpipe
