// Who takes part: collects workers until the wanted number is there and checks that all describe
// the same run.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "freeze_service/core/events.h"

namespace smartpipe {

/// Order in which ranks are given: runs of digits compare as numbers, so w2 comes before w10.
bool NaturalLess(absl::string_view a, absl::string_view b);

/// Checks one worker's description by itself: its id, the run's length, the layers' names and
/// costs.
/// Errors: INVALID_ARGUMENT naming the field.
absl::Status CheckDescription(const WorkerJoined& joined, int32_t num_stages);

/// The members of the next generation, by rank.  Threads: not thread-safe.
class Membership {
 public:
  explicit Membership(int32_t num_wanted) : num_wanted_(num_wanted) {}

  /// True when `joined` repeats what a member already said: nothing to do.
  /// Errors: INVALID_ARGUMENT when it describes another run than the members do, naming the first
  /// difference; ALREADY_EXISTS when its id is in use; FAILED_PRECONDITION when all places are
  /// taken.
  absl::StatusOr<bool> CheckJoin(const WorkerJoined& joined) const;
  /// Requires a CheckJoin that returned false.
  void Add(const WorkerJoined& joined);
  /// Rank of the member with this id; nothing if there is none.
  std::optional<Rank> FindRank(const WorkerId& worker) const;
  void Remove(Rank rank);
  /// Whether it describes the same run as the members do.  Errors: INVALID_ARGUMENT.
  absl::Status CheckSame(const WorkerJoined& joined) const;
  /// Another process of the same worker, after CheckSame.
  void Replace(Rank rank, const WorkerJoined& joined) { members_[rank.value()] = joined; }
  /// Takes the first member's layers for those of all: once a generation has started nobody needs
  /// what each has measured.
  void ShareLayers();

  bool complete() const { return static_cast<int32_t>(members_.size()) == num_wanted_; }
  const std::vector<WorkerJoined>& members() const { return members_; }  // [rank]
  std::vector<WorkerId> ids() const;                                     // [rank]
  /// "2 of 4 workers: w0, w2; waiting for 2 more".
  std::string Message() const;
  /// The layers with the mean of the members' measured times. Requires a member.
  std::vector<LayerInfo> MeanLayers() const;

 private:
  int32_t num_wanted_;
  std::vector<WorkerJoined> members_;  // natural order of ids
};

}  // namespace smartpipe
