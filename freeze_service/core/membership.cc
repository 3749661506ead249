#include "freeze_service/core/membership.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "freeze_service/core/reason.h"
#include "services/base/limits.h"
#include "services/base/status_macros.h"

namespace smartpipe {
namespace {

struct TimeField {
  absl::string_view name;
  double LayerCost::*field;
};
constexpr TimeField kTimeFields[] = {{"forward_s", &LayerCost::forward_s},
                                     {"input_grad_s", &LayerCost::input_grad_s},
                                     {"weight_grad_s", &LayerCost::weight_grad_s},
                                     {"optimize_s", &LayerCost::optimize_s}};
struct BytesField {
  absl::string_view name;
  int64_t LayerCost::*field;
};
constexpr BytesField kBytesFields[] = {{"output_bytes", &LayerCost::output_bytes},
                                       {"param_bytes", &LayerCost::param_bytes},
                                       {"state_bytes", &LayerCost::state_bytes},
                                       {"activation_bytes", &LayerCost::activation_bytes}};

// The run of digits at the start of `text`, without leading zeros; removes it from `text`.
absl::string_view TakeNumber(absl::string_view* text) {
  size_t size = 0;
  while (size < text->size() && absl::ascii_isdigit((*text)[size])) ++size;
  absl::string_view digits = text->substr(0, size);
  text->remove_prefix(size);
  while (digits.size() > 1 && digits.front() == '0') digits.remove_prefix(1);
  return digits;
}

absl::Status CheckLength(const RunLength& length) {
  const auto check = [](absl::string_view field, int64_t value) {
    if (value >= 1 && value <= limits::kStepsMax) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat(field, " is ", value, ", not in 1..", limits::kStepsMax));
  };
  SP_RETURN_IF_ERROR(check("num_steps", length.num_steps));
  SP_RETURN_IF_ERROR(check("steps_per_epoch", length.steps_per_epoch));
  return check("interval_steps", length.interval_steps);
}

absl::Status CheckCost(const std::string& label, const LayerCost& cost) {
  for (const auto& [name, field] : kTimeFields) {
    if (!std::isfinite(cost.*field) || cost.*field < 0) {
      return absl::InvalidArgumentError(absl::StrCat(
          label, ": ", name, " is ", Rounded(cost.*field), ", it must be a time of at least 0"));
    }
    if (cost.*field > limits::kSecondsMax) {
      return absl::InvalidArgumentError(absl::StrCat(label, ": ", name, " is ",
                                                     Rounded(cost.*field), ", it must be at most ",
                                                     Rounded(limits::kSecondsMax), " seconds"));
    }
  }
  for (const auto& [name, field] : kBytesFields) {
    if (cost.*field < 0) {
      return absl::InvalidArgumentError(
          absl::StrCat(label, ": ", name, " is ", cost.*field, ", it must be at least 0"));
    }
    if (cost.*field > limits::kTensorBytesMax) {
      return absl::InvalidArgumentError(absl::StrCat(label, ": ", name, " is ", cost.*field,
                                                     ", it must be at most ",
                                                     limits::kTensorBytesMax));
    }
  }
  return absl::OkStatus();
}

// "what A, but the other has B"; the first difference between two descriptions of the run.
absl::Status Differs(const WorkerJoined& joined, const WorkerJoined& member, absl::string_view what,
                     absl::string_view value, absl::string_view other) {
  return absl::InvalidArgumentError(
      absl::StrCat("worker \"", joined.worker.value(), "\" has ", what, " ", value, ", but \"",
                   member.worker.value(), "\" has ", other,
                   ": all workers must run the same program, config and dataset"));
}

absl::Status CheckSameLength(const WorkerJoined& a, const WorkerJoined& b) {
  const auto check = [&](absl::string_view field, int64_t mine, int64_t other) {
    return mine == other ? absl::OkStatus()
                         : Differs(a, b, field, absl::StrCat(mine), absl::StrCat(other));
  };
  SP_RETURN_IF_ERROR(check("num_steps", a.length.num_steps, b.length.num_steps));
  SP_RETURN_IF_ERROR(check("steps_per_epoch", a.length.steps_per_epoch, b.length.steps_per_epoch));
  return check("interval_steps", a.length.interval_steps, b.length.interval_steps);
}

absl::Status CheckSameRun(const WorkerJoined& a, const WorkerJoined& b) {
  SP_RETURN_IF_ERROR(CheckSameLength(a, b));
  if (a.layers.size() != b.layers.size()) {
    return Differs(a, b, "a layer count of", absl::StrCat(a.layers.size()),
                   absl::StrCat(b.layers.size()));
  }
  for (size_t i = 0; i < a.layers.size(); ++i) {
    const LayerInfo &mine = a.layers[i], &other = b.layers[i];
    if (mine.name != other.name) {
      return Differs(a, b, absl::StrCat("layer ", i, " named"), absl::StrCat("\"", mine.name, "\""),
                     absl::StrCat("\"", other.name, "\""));
    }
    for (const auto& [name, field] : kBytesFields) {
      if (mine.cost.*field == other.cost.*field) continue;
      const std::string label = LayerLabel(LayerIndex(static_cast<int32_t>(i)), mine.name);
      return Differs(a, b, absl::StrCat(label, " with ", name), absl::StrCat(mine.cost.*field),
                     absl::StrCat(other.cost.*field));
    }
  }
  return absl::OkStatus();
}

// One process measures once, so its times need not be compared.
bool SameJoin(const WorkerJoined& a, const WorkerJoined& b) {
  return a.worker == b.worker && a.incarnation == b.incarnation && a.checkpoints == b.checkpoints &&
         CheckSameRun(a, b).ok();
}

absl::Status CheckWorkerId(const std::string& id) {
  if (IsWorkerId(id)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("worker id \"", id.substr(0, limits::kNameBytesMax), "\" must be 1 to ",
                   limits::kNameBytesMax, " of a-z, 0-9 and -"));
}

}  // namespace

bool NaturalLess(absl::string_view a, absl::string_view b) {
  const absl::string_view whole_a = a, whole_b = b;
  while (!a.empty() && !b.empty()) {
    if (absl::ascii_isdigit(a.front()) && absl::ascii_isdigit(b.front())) {
      const absl::string_view number_a = TakeNumber(&a), number_b = TakeNumber(&b);
      if (number_a.size() != number_b.size()) return number_a.size() < number_b.size();
      if (number_a != number_b) return number_a < number_b;
    } else {
      if (a.front() != b.front()) return a.front() < b.front();
      a.remove_prefix(1);
      b.remove_prefix(1);
    }
  }
  if (a.empty() != b.empty()) return a.empty();
  return whole_a < whole_b;  // w1 and w01
}

absl::Status CheckDescription(const WorkerJoined& joined, int32_t num_stages) {
  SP_RETURN_IF_ERROR(CheckWorkerId(joined.worker.value()));
  const std::string who = absl::StrCat("worker \"", joined.worker.value(), "\"");
  SP_RETURN_IF_ERROR(Annotate(CheckLength(joined.length), who));
  const int64_t num_layers = joined.layers.size();
  if (num_layers < num_stages || num_layers > limits::kLayersMax) {
    return absl::InvalidArgumentError(absl::StrCat(
        who, ": the model has ", Counted(num_layers, "layer"), ", it must have ", num_stages, "..",
        limits::kLayersMax, " to fill ", Counted(num_stages, "stage")));
  }
  std::set<absl::string_view> names;
  for (int32_t i = 0; i < num_layers; ++i) {
    const LayerInfo& layer = joined.layers[i];
    const std::string label = absl::StrCat(who, ": ", LayerLabel(LayerIndex(i), layer.name));
    if (layer.name.empty()) return absl::InvalidArgumentError(absl::StrCat(label, " has no name"));
    if (!names.insert(layer.name).second) {
      return absl::InvalidArgumentError(absl::StrCat(label, " has the name of a layer before it"));
    }
    SP_RETURN_IF_ERROR(CheckCost(label, layer.cost));
  }
  return absl::OkStatus();
}

absl::StatusOr<bool> Membership::CheckJoin(const WorkerJoined& joined) const {
  if (const std::optional<Rank> rank = FindRank(joined.worker)) {
    if (SameJoin(joined, members_[rank->value()])) return true;
    return absl::AlreadyExistsError(
        absl::StrCat("worker id \"", joined.worker.value(),
                     "\" is in use by another process: end that process or choose another id"));
  }
  if (complete()) {
    return absl::FailedPreconditionError(
        absl::StrCat("worker \"", joined.worker.value(), "\" cannot join: all ", num_wanted_,
                     " places are taken by ", absl::StrJoin(ids(), ", ", absl::StreamFormatter())));
  }
  if (!members_.empty()) SP_RETURN_IF_ERROR(CheckSameRun(joined, members_.front()));
  return false;
}

absl::Status Membership::CheckSame(const WorkerJoined& joined) const {
  for (const WorkerJoined& member : members_) SP_RETURN_IF_ERROR(CheckSameRun(joined, member));
  return absl::OkStatus();
}

void Membership::Add(const WorkerJoined& joined) {
  const auto place = std::upper_bound(members_.begin(), members_.end(), joined,
                                      [](const WorkerJoined& a, const WorkerJoined& b) {
                                        return NaturalLess(a.worker.value(), b.worker.value());
                                      });
  members_.insert(place, joined);
}

std::optional<Rank> Membership::FindRank(const WorkerId& worker) const {
  for (size_t rank = 0; rank < members_.size(); ++rank) {
    if (members_[rank].worker == worker) return Rank(static_cast<int32_t>(rank));
  }
  return std::nullopt;
}

void Membership::Remove(Rank rank) { members_.erase(members_.begin() + rank.value()); }

void Membership::ShareLayers() {
  for (WorkerJoined& member : members_) member.layers = members_.front().layers;
}

std::vector<WorkerId> Membership::ids() const {
  std::vector<WorkerId> ids;
  for (const WorkerJoined& member : members_) ids.push_back(member.worker);
  return ids;
}

std::string Membership::Message() const {
  const int32_t num_missing = num_wanted_ - static_cast<int32_t>(members_.size());
  std::string text = absl::StrCat(members_.size(), " of ", Counted(num_wanted_, "worker"));
  if (!members_.empty()) {
    absl::StrAppend(&text, ": ", absl::StrJoin(ids(), ", ", absl::StreamFormatter()));
  }
  if (num_missing > 0) {
    absl::StrAppend(&text, "; waiting for ", num_missing, members_.empty() ? "" : " more");
  }
  return text;
}

std::vector<LayerInfo> Membership::MeanLayers() const {
  std::vector<LayerInfo> layers = members_.front().layers;
  for (size_t i = 0; i < layers.size(); ++i) {
    for (const auto& [name, field] : kTimeFields) {
      double sum = 0;
      for (const WorkerJoined& member : members_) sum += member.layers[i].cost.*field;
      layers[i].cost.*field = sum / static_cast<double>(members_.size());
    }
  }
  return layers;
}

}  // namespace smartpipe
