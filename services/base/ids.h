// Strong types for the numbers and names of the design's vocabulary, so that a step can never be
// passed where a layer is wanted.
#pragma once

#include <compare>
#include <cstdint>
#include <functional>
#include <ostream>
#include <string>
#include <string_view>
#include <utility>

#include "services/base/limits.h"

namespace smartpipe {

/// An integer with a unit of meaning. Explicit from and to its representation; ordered; only
/// same-tag arithmetic with plain offsets. Formats with absl::StrCat through `value()`.  Cost:
/// none.
template <typename Tag, typename Rep = int32_t>
class StrongInt {
 public:
  using rep = Rep;
  constexpr StrongInt() = default;
  constexpr explicit StrongInt(Rep value) : value_(value) {}
  constexpr Rep value() const { return value_; }

  friend constexpr auto operator<=>(StrongInt, StrongInt) = default;
  constexpr StrongInt& operator++() {
    ++value_;
    return *this;
  }
  constexpr StrongInt& operator--() {
    --value_;
    return *this;
  }
  friend constexpr StrongInt operator+(StrongInt a, Rep offset) {
    return StrongInt(a.value_ + offset);
  }
  friend constexpr StrongInt operator-(StrongInt a, Rep offset) {
    return StrongInt(a.value_ - offset);
  }
  friend constexpr Rep operator-(StrongInt a, StrongInt b) { return a.value_ - b.value_; }
  friend std::ostream& operator<<(std::ostream& out, StrongInt id) { return out << id.value_; }
  template <typename H>
  friend H AbslHashValue(H h, StrongInt id) {
    return H::combine(std::move(h), id.value_);
  }

 private:
  Rep value_ = 0;
};

/// Position in the model's layer list; 0 is next to the input. Also used as an exclusive end and as
/// the frontier.
using LayerIndex = StrongInt<struct LayerIndexTag, int32_t>;
/// Position of a stage in the pipeline; 0 holds layer 0.
using StageIndex = StrongInt<struct StageIndexTag, int32_t>;
/// A worker's position in the process group; valid for one generation only.
using Rank = StrongInt<struct RankTag, int32_t>;
/// One of the M slices of a step's global batch, 0..M-1.
using MicrobatchIndex = StrongInt<struct MicrobatchIndexTag, int32_t>;
/// Optimizer step, counted from 0 over the whole run.
using Step = StrongInt<struct StepTag, int64_t>;
/// Interval i covers steps [iK, (i+1)K); boundary i is the start of interval i.
using IntervalIndex = StrongInt<struct IntervalIndexTag, int64_t>;
/// Rises by exactly 1 with each new plan; the first plan has 0.
using PlanEpoch = StrongInt<struct PlanEpochTag, int64_t>;
/// Membership number; raised when a worker joins, leaves or is lost. The first complete membership
/// has 1.
using Generation = StrongInt<struct GenerationTag, int64_t>;

/// Whether `name` may be a WorkerId: [a-z0-9-]{1,63}.
constexpr bool IsWorkerId(std::string_view name) {
  if (name.empty() || name.size() > static_cast<size_t>(limits::kNameBytesMax)) return false;
  for (char c : name) {
    if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-')) return false;
  }
  return true;
}

/// Stable name of a worker process, e.g. "w0"; IsWorkerId is the rule for those from outside.
class WorkerId {
 public:
  WorkerId() = default;
  explicit WorkerId(std::string value) : value_(std::move(value)) {}
  const std::string& value() const { return value_; }
  friend auto operator<=>(const WorkerId&, const WorkerId&) = default;
  friend std::ostream& operator<<(std::ostream& out, const WorkerId& id) {
    return out << id.value_;
  }
  template <typename H>
  friend H AbslHashValue(H h, const WorkerId& id) {
    return H::combine(std::move(h), id.value_);
  }

 private:
  std::string value_;
};

}  // namespace smartpipe
