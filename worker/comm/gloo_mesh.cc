// Headers of Gloo may be older than the code inside libtorch_cpu: no object of a gloo type is made
// here, only passed on.
#include "worker/comm/gloo_mesh.h"

#include <net/if.h>

#include <algorithm>
#include <chrono>
#include <exception>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "services/base/status_macros.h"
#include "torch/csrc/distributed/c10d/ProcessGroupGloo.hpp"
#include "worker/comm/c10d_store.h"
#include "worker/comm/channel.h"

namespace smartpipe {
namespace {

// Limit of what cannot be interrupted: connecting ranks that are all known to be there.
constexpr absl::Duration kMeshTimeoutMax = absl::Seconds(8);
constexpr int kNumConnections = 2;

// Gloo waits for addresses with the timeout that it is given, and for a connection five times as
// long. Here both take the same.
constexpr int kGlooConnectFactor = 5;
class MeshStore final : public C10dStore {
 public:
  using C10dStore::C10dStore;
  using C10dStore::wait;
  void wait(const std::vector<std::string>& keys,
            const std::chrono::milliseconds& timeout) override {
    C10dStore::wait(keys, std::max(timeout, getTimeout()));
  }
};

// Waits until every rank is here, so that a missing one can be named.
absl::Status Gather(const TransportOptions& options, absl::Time deadline) {
  auto key = [](int32_t rank) { return absl::StrCat("transport/rank/", rank); };
  SP_RETURN_IF_ERROR(options.store->Set(key(options.rank.value()), "here"));
  std::vector<std::string> keys;
  for (int32_t rank = 0; rank < options.size; ++rank) keys.push_back(key(rank));
  const absl::Status status = options.store->Wait(keys, deadline - absl::Now());
  if (!absl::IsDeadlineExceeded(status)) return status;
  std::vector<std::string> missing;
  for (int32_t rank = 0; rank < options.size; ++rank) {
    SP_ASSIGN_OR_RETURN(const bool here, options.store->Check({key(rank)}));
    if (!here) missing.push_back(DescribeRank(Rank(rank), options.member_names));
  }
  return absl::DeadlineExceededError(absl::StrCat(
      "waited ", absl::ToDoubleSeconds(options.connect_timeout), " s for ",
      absl::StrJoin(missing, ", "), "; ", options.size - static_cast<int32_t>(missing.size()),
      " of ", options.size, " workers are ready to connect"));
}

}  // namespace

absl::StatusOr<c10::intrusive_ptr<c10d::Backend>> ConnectGlooMesh(const TransportOptions& options) {
  const absl::Time deadline = absl::Now() + options.connect_timeout;
  const std::string& address = options.bind_address;
  auto gloo_options = c10d::ProcessGroupGloo::Options::create();
  gloo_options->threads = 1;  // they serve collectives only, of which there are none
  try {
    const bool is_interface = if_nametoindex(address.c_str()) != 0;
    for (int i = 0; i < kNumConnections; ++i) {
      gloo_options->devices.push_back(
          is_interface
              ? c10d::ProcessGroupGloo::createDeviceForInterface(address, /*lazyInit=*/false)
              : c10d::ProcessGroupGloo::createDeviceForHostname(address, /*lazyInit=*/false));
    }
  } catch (const std::exception& error) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", address, "\" is neither an address nor a network interface ",
                     "of this machine: ", FirstLine(error)));
  }
  // After the last step that fails for reasons of this machine alone.
  SP_RETURN_IF_ERROR(Gather(options, deadline));
  const auto mesh_timeout = absl::ToChronoMilliseconds(
      std::clamp(deadline - absl::Now(), absl::Milliseconds(kGlooConnectFactor), kMeshTimeoutMax));
  gloo_options->timeout = mesh_timeout / kGlooConnectFactor;
  auto store = c10::make_intrusive<MeshStore>(options.store, mesh_timeout);
  try {
    return c10::intrusive_ptr<c10d::Backend>(c10::make_intrusive<c10d::ProcessGroupGloo>(
        store, options.rank.value(), options.size, std::move(gloo_options)));
  } catch (const std::exception& error) {
    const absl::Status status = store->status();
    if (!status.ok() && !absl::IsDeadlineExceeded(status)) {
      return Annotate(status, "exchanging addresses");
    }
    return absl::UnavailableError(absl::StrCat(
        "all ", options.size, " workers came, but they cannot connect: ",
        status.ok() ? FirstLine(error) : std::string(status.message()),
        ". One may have died just now, or ", address, " is not reachable from all of them"));
  }
}

}  // namespace smartpipe
