// Ordered one-way channels between ranks as the interpreter uses them: receives posted ahead, sends
// under way, both bounded by credits. All stage edges between two ranks share a channel per
// direction and kind; its order is that of the programs.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "services/base/ids.h"
#include "worker/comm/transport.h"
#include "worker/engine/stopwatch.h"

namespace smartpipe {

/// Receiving end: holds up to `credits` buffers, posted, arrived or being read; what does not fit
/// waits at its sender. No message goes upstream.  Threads: the compute thread.
class Inbox {
 public:
  /// Buffers are on `device`.
  Inbox(Transport* transport, Rank from, ChannelKind kind, at::Device device = at::kCPU)
      : transport_(transport), from_(from), kind_(kind), device_(device) {}
  /// >= 1, the sum over the channel's edges; takes effect with the next post.
  void set_credits(int32_t credits) { credits_ = static_cast<size_t>(credits); }
  /// Announces the next float32 message of the channel, for `stage`.
  absl::Status Expect(StageIndex stage, MicrobatchIndex microbatch, std::vector<int64_t> shape);
  /// Waits for a message that was announced; its tensor owns 64-byte aligned storage.
  absl::StatusOr<at::Tensor> Take(StageIndex stage, MicrobatchIndex microbatch);
  /// What was taken last has been read: its buffer's place is free for another message.
  absl::Status Release();

 private:
  using Key = std::pair<StageIndex, MicrobatchIndex>;
  absl::Status Post();
  Transport* const transport_;
  const Rank from_;
  const ChannelKind kind_;
  const at::Device device_;
  size_t credits_ = 1;
  bool taken_ = false;
  struct Posted {
    Key key;
    at::Tensor buffer;
    std::unique_ptr<Transfer> transfer;
  };
  std::deque<std::pair<Key, std::vector<int64_t>>> expected_;  // with the shape
  std::deque<Posted> posted_;
  std::map<Key, at::Tensor> arrived_;  // before their turn
};

/// Sending end: up to `credits` messages wait for a buffer of their peer; one more waits for the
/// oldest.  Threads: the compute thread.
class Outbox {
 public:
  Outbox(Transport* transport, Rank to, ChannelKind kind)
      : transport_(transport), to_(to), kind_(kind) {}
  /// >= 1, the sum over the channel's edges; takes effect with the next send.
  void set_credits(int32_t credits) { credits_ = static_cast<size_t>(credits); }
  absl::Status Send(const at::Tensor& tensor);
  /// Waits until every send is done.
  absl::Status Drain();
  int64_t bytes_sent() const { return bytes_sent_; }

 private:
  absl::Status WaitOldest();
  Transport* const transport_;
  const Rank to_;
  const ChannelKind kind_;
  size_t credits_ = 1;
  int64_t bytes_sent_ = 0;
  std::deque<std::unique_ptr<Transfer>> under_way_;
};

/// One-message conversations on the state channel, for migration, gathering and barriers.
absl::Status SendPacked(Transport& transport, Rank to, const at::Tensor& packed);
/// `watch`, if given, restarts when the sender turned out to be there.
absl::StatusOr<at::Tensor> ReceivePacked(Transport& transport, Rank from,
                                         Stopwatch* watch = nullptr);
/// What a channel between neighbours can do.
struct LinkSpeed {
  double bytes_per_s = 0;  // 0 = not measured: the last rank, or a group of one
  double latency_s = 0;    // of a small message
};
/// Measures the way from this rank to the next, for tensors on `device`. Every rank calls it.
/// Cost: some milliseconds for each pair of neighbours, one pair after the other.
absl::StatusOr<LinkSpeed> MeasureLink(Transport& transport, at::Device device = at::kCPU);
/// Returns when all ranks have called it.  Cost: two small messages per rank over rank 0.
absl::Status Barrier(Transport& transport);

}  // namespace smartpipe
