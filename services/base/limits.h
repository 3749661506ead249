// The one table of limits. Every queue, map, message and loop that input can grow is bounded by a
// line here; what is over a limit is refused by name, never truncated.
#pragma once

#include <cstdint>

namespace smartpipe::limits {

inline constexpr int32_t kLayersMax = 4096;
inline constexpr int32_t kStagesMax = 64;
inline constexpr int32_t kMicrobatchesMax = 4096;
inline constexpr int32_t kWorkersMax = 256;
inline constexpr int64_t kStepsMax = 1'000'000'000;
inline constexpr int64_t kGrpcMessageBytesMax = 4 << 20;
inline constexpr int64_t kConfigBytesMax = 1 << 20;
inline constexpr int64_t kKeyValueKeyBytesMax = 1024;
inline constexpr int64_t kKeyValueValueBytesMax = 1 << 20;
inline constexpr int64_t kKeyValueEntriesMax = 65'536;
inline constexpr int64_t kNameBytesMax = 63;
inline constexpr int64_t kReasonBytesMax = 2048;
inline constexpr int64_t kDecisionPageMax = 1000;

}  // namespace smartpipe::limits
