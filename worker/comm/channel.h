// What all transports share: names for messages, and the checks at the door.
#pragma once

#include <cstdint>
#include <exception>
#include <string>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "services/base/ids.h"
#include "worker/comm/transport.h"

namespace smartpipe {

/// "activation", "gradient" or "state".
absl::string_view ChannelKindName(ChannelKind kind);

/// "rank 1 (w1)"; without a name for the rank just "rank 1".
std::string DescribeRank(Rank rank, const std::vector<std::string>& member_names);

/// Shape and type, as "[16, 64] Float".
std::string DescribeTensor(const at::Tensor& tensor);

/// What c10d or Gloo says, without the source positions and back trace that follow.
std::string FirstLine(const std::exception& error);

/// INVALID_ARGUMENT unless `peer` is another rank of the group, and `kind` one of the enumerators.
absl::Status CheckChannel(Rank self, int32_t size, Rank peer, ChannelKind kind);

/// INVALID_ARGUMENT unless the tensor is dense and contiguous.
absl::Status CheckDenseTensor(const at::Tensor& tensor);

/// Also that it is in host memory.
absl::Status CheckSendTensor(const at::Tensor& tensor);

/// Also that it starts its storage, at a 64-byte boundary: a misaligned view changes the result of
/// a linear layer.
absl::Status CheckReceiveTensor(const at::Tensor& tensor);

}  // namespace smartpipe
