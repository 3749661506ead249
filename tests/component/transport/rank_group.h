// Groups of ranks as threads of the test, over any transport.
#ifndef SMARTPIPE_TESTS_COMPONENT_TRANSPORT_RANK_GROUP_H_
#define SMARTPIPE_TESTS_COMPONENT_TRANSPORT_RANK_GROUP_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "worker/comm/transport.h"

namespace smartpipe::testutil {

/// One row of the conformance table.
struct TransportKind {
  std::string name;
  bool names_members = false;  // messages hold the member's name, not only its rank
  bool buffers_sends = false;  // a send ends without its receive
  absl::Status wrong_shape;    // what a shape mismatch ends in; only its code counts
  bool on_gpus = false;        // tensors are copied to and from GPUs, one for each rank
  /// Makes transports of all ranks, in rank order; a failure fails the running test.
  std::function<std::vector<std::unique_ptr<Transport>>(int32_t size,
                                                        absl::Duration transfer_timeout)>
      make;
};

TransportKind GlooKind();
TransportKind LoopbackKind(bool rendezvous);
/// Loopback behind MakeStagedTransport, every tensor copied.
TransportKind StagedKind();
/// NCCL between GPUs of this machine: the tests' host tensors go through a copy on a GPU at either
/// end.
TransportKind NcclKind();
/// How many GPUs NcclKind could use, and if none, why.
absl::StatusOr<int32_t> NumGpus();

/// "w0", "w1", ...
std::vector<std::string> MemberNames(int32_t size);

/// Calls `body(rank)` on one thread per rank and waits for all.
void RunRanks(int32_t size, const std::function<void(Rank)>& body);

/// Transports of all ranks, each made on a thread of its own with its `TransportOptions`, in which
/// `device` is left out; a failure fails the running test.
std::vector<std::unique_ptr<Transport>> MakeGroup(
    int32_t size, absl::Duration transfer_timeout,
    const std::function<absl::StatusOr<std::unique_ptr<Transport>>(TransportOptions options)>&
        make);

/// Both steps of a transfer in one.
absl::Status SendAndWait(Transport& transport, Rank to, ChannelKind kind, const at::Tensor& tensor);
absl::Status ReceiveAndWait(Transport& transport, Rank from, ChannelKind kind, at::Tensor tensor);

/// A tensor of `num_bytes` (rounded down to whole elements) whose bytes depend on `seed` only.
at::Tensor PatternTensor(c10::ScalarType type, int64_t num_bytes, uint64_t seed);
/// Uninitialised, with storage of its own.
at::Tensor EmptyLike(const at::Tensor& tensor);
bool SameBytes(const at::Tensor& a, const at::Tensor& b);

}  // namespace smartpipe::testutil

#endif  // SMARTPIPE_TESTS_COMPONENT_TRANSPORT_RANK_GROUP_H_
