// Transport: the only door to c10d. Ordered one-way channels between ranks, shapes known to both
// sides.
//
// Order is the protocol: on one channel the n-th send meets the n-th receive. A new transport is
// one file here and one line in the table of tests/component/transport/conformance_test.cc, whose
// tests it must pass.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "services/base/ids.h"
#include "services/base/key_value_store.h"

namespace smartpipe {

/// A transfer under way. Destroying it without waiting is allowed after Transport::Abort() only.
class Transfer {
 public:
  virtual ~Transfer() = default;
  /// For a tensor in host memory: blocks the calling thread until done. For one on a device: makes
  /// the calling thread's current stream wait, which blocks the thread at most until the two ranks
  /// are connected; what goes wrong later is said by later calls and by Transport::status(). For a
  /// receive the tensor is filled then.  Errors: UNAVAILABLE naming the peer ("rank 1 (w1) closed
  /// the connection"), DEADLINE_EXCEEDED, CANCELLED after Abort().
  virtual absl::Status Wait() = 0;
  /// True when Wait would not block.
  virtual bool Done() = 0;
};

/// What a channel carries; each kind has its own order.
enum class ChannelKind : uint8_t { kActivation = 0, kGradient = 1, kState = 2 };

/// Threads: Send, Receive and Wait from the compute thread; Abort from any thread.
class Transport {
 public:
  virtual ~Transport() = default;
  virtual Rank rank() const = 0;
  virtual int32_t size() const = 0;
  /// Starts sending a contiguous tensor; it is kept alive and must not be changed until Wait
  /// returned.
  virtual absl::StatusOr<std::unique_ptr<Transfer>> Send(Rank to, ChannelKind kind,
                                                         const at::Tensor& tensor) = 0;
  /// Starts receiving into a contiguous tensor with its own 64-byte aligned storage.
  virtual absl::StatusOr<std::unique_ptr<Transfer>> Receive(Rank from, ChannelKind kind,
                                                            at::Tensor tensor) = 0;
  /// Ends every pending and later transfer with CANCELLED, `why` in the message; closes the
  /// connections so that peers fail too. Idempotent.
  virtual void Abort(const absl::Status& why) = 0;
  /// Why transfers fail; OK while none does. Who hands out a number that was computed on a device
  /// asks behind the wait for it: a transfer that was ended leaves its tensor as it happens to be.
  /// Threads: any.
  virtual absl::Status status() const = 0;
};

struct TransportOptions {
  Rank rank;
  int32_t size = 1;
  std::vector<std::string> member_names;  // [rank], for messages
  std::shared_ptr<KeyValueStore> store;   // rendezvous
  absl::Duration connect_timeout = absl::Seconds(60);
  absl::Duration transfer_timeout = absl::Minutes(10);
  std::string device = "cpu";              // "cuda:0": streams and events live behind Transfer
  std::string bind_address = "127.0.0.1";  // interface of the data connections
};

/// Gloo over TCP. Connects all ranks; returns when the group is complete. From then on the process
/// ignores SIGPIPE.
absl::StatusOr<std::unique_ptr<Transport>> MakeGlooTransport(const TransportOptions& options);

/// Moves tensors of a device through host memory over `host`, a transport for host tensors, which
/// pass unchanged: for devices that have no way to each other. Send waits until the tensor is
/// computed. `host_tensors_too`: they are copied as well, for tests where there is no device.
std::unique_ptr<Transport> MakeStagedTransport(std::unique_ptr<Transport> host,
                                               bool host_tensors_too = false);

/// Ranks as threads of one process, for tests, and the group of a rank alone: copies through
/// memory, rendezvous or buffered, with scripted faults.
class LoopbackHub {
 public:
  struct Fault {
    Rank from, to;
    ChannelKind kind;
    int64_t message = 0;  // the n-th message of the channel fails on both sides ...
    absl::Status status;  // ... with this
  };
  /// A transfer that does not end within `transfer_timeout` fails as with Gloo, so that a deadlock
  /// becomes a message.
  explicit LoopbackHub(int32_t size, bool rendezvous = true, std::vector<Fault> faults = {},
                       absl::Duration transfer_timeout = absl::Seconds(60));
  ~LoopbackHub();
  /// One per rank; may outlive the hub.
  std::unique_ptr<Transport> MakeTransport(Rank rank);
  /// Messages and bytes sent so far per kind, over all ranks.
  int64_t num_messages(ChannelKind kind) const;
  int64_t num_bytes(ChannelKind kind) const;
  /// Implementation.
  struct Shared;

 private:
  std::shared_ptr<Shared> shared_;
};

}  // namespace smartpipe
