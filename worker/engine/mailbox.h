// Ordered one-way edges as the interpreter uses them: receives posted ahead, sends under way, both
// bounded by credits.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <utility>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "services/base/ids.h"
#include "worker/comm/transport.h"

namespace smartpipe {

/// Receiving end: keeps up to `credits` receives posted, so a sender is never held up by a busy
/// compute thread. A posted buffer is the credit: no message goes upstream.  Threads: the compute
/// thread.
class Inbox {
 public:
  Inbox(Transport* transport, Rank from, ChannelKind kind)
      : transport_(transport), from_(from), kind_(kind) {}
  /// >= 1; takes effect with the next post.
  void set_credits(int32_t credits) { credits_ = static_cast<size_t>(credits); }
  /// Announces `count` more float32 messages of `shape`, and posts as many as the credits allow.
  absl::Status Expect(int64_t count, const std::vector<int64_t>& shape);
  /// The next message; its tensor owns 64-byte aligned storage.
  absl::StatusOr<at::Tensor> Next();

 private:
  absl::Status Post();
  Transport* const transport_;
  const Rank from_;
  const ChannelKind kind_;
  size_t credits_ = 1;
  struct Expected {
    int64_t count;
    std::vector<int64_t> shape;
  };
  std::deque<Expected> expected_;
  std::deque<std::pair<at::Tensor, std::unique_ptr<Transfer>>> posted_;
};

/// Sending end: at most `credits` sends under way; one more waits for the oldest.  Threads: the
/// compute thread.
class Outbox {
 public:
  Outbox(Transport* transport, Rank to, ChannelKind kind)
      : transport_(transport), to_(to), kind_(kind) {}
  /// >= 1; takes effect with the next send.
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
absl::StatusOr<at::Tensor> ReceivePacked(Transport& transport, Rank from);
/// Returns when all ranks have called it.  Cost: two small messages per rank over rank 0.
absl::Status Barrier(Transport& transport);

}  // namespace smartpipe
