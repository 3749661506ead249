#include "worker/comm/channel.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "services/base/status_macros.h"

namespace smartpipe {
namespace {

constexpr uintptr_t kAlignmentBytes = 64;

}  // namespace

absl::string_view ChannelKindName(ChannelKind kind) {
  switch (kind) {
    case ChannelKind::kActivation:
      return "activation";
    case ChannelKind::kGradient:
      return "gradient";
    case ChannelKind::kState:
      return "state";
  }
  return "unknown";
}

std::string DescribeRank(Rank rank, const std::vector<std::string>& member_names) {
  const size_t index = static_cast<size_t>(rank.value());
  if (rank.value() < 0 || index >= member_names.size() || member_names[index].empty()) {
    return absl::StrCat("rank ", rank.value());
  }
  return absl::StrCat("rank ", rank.value(), " (", member_names[index], ")");
}

std::string DescribeTensor(const at::Tensor& tensor) {
  return absl::StrCat("[", absl::StrJoin(tensor.sizes(), ", "), "] ",
                      c10::toString(tensor.scalar_type()));
}

std::string FirstLine(const std::exception& error) {
  const std::string text = error.what();
  return text.substr(0, text.find('\n'));
}

absl::Status CheckChannel(Rank self, int32_t size, Rank peer, ChannelKind kind) {
  if (peer.value() < 0 || peer.value() >= size || peer == self) {
    return absl::InvalidArgumentError(absl::StrCat("rank ", self.value(), " of ", size,
                                                   " has no channel with rank ", peer.value()));
  }
  if (kind > ChannelKind::kState) {
    return absl::InvalidArgumentError(
        absl::StrCat("channel kind ", static_cast<int>(kind), " does not exist"));
  }
  return absl::OkStatus();
}

absl::Status CheckDenseTensor(const at::Tensor& tensor) {
  if (!tensor.defined()) return absl::InvalidArgumentError("an undefined tensor cannot be moved");
  if (tensor.layout() != c10::kStrided || !tensor.is_contiguous()) {
    return absl::InvalidArgumentError(
        absl::StrCat(DescribeTensor(tensor), " is not a contiguous tensor; copy it first"));
  }
  return absl::OkStatus();
}

absl::Status CheckSendTensor(const at::Tensor& tensor) {
  SP_RETURN_IF_ERROR(CheckDenseTensor(tensor));
  if (!tensor.is_cpu()) {
    return absl::InvalidArgumentError(absl::StrCat(
        DescribeTensor(tensor), " is not a contiguous tensor in CPU memory; copy it first"));
  }
  return absl::OkStatus();
}

absl::Status CheckReceiveTensor(const at::Tensor& tensor) {
  SP_RETURN_IF_ERROR(CheckSendTensor(tensor));
  const auto address = reinterpret_cast<uintptr_t>(tensor.const_data_ptr());
  if (tensor.storage_offset() != 0 || address % kAlignmentBytes != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("receiving into ", DescribeTensor(tensor),
                     " which does not own storage aligned to 64 bytes; use a fresh tensor"));
  }
  return absl::OkStatus();
}

}  // namespace smartpipe
