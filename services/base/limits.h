// The limits of what comes in from outside, in one table: what is over a limit is refused by name,
// never truncated. Queues and caches of one module have their bounds beside them; the verdicts of a
// run are kept all and grow with its length.
#pragma once

#include <cstdint>

namespace smartpipe::limits {

inline constexpr int32_t kLayersMax = 4096;
inline constexpr int32_t kStagesMax = 256;
inline constexpr int32_t kMicrobatchesMax = 4096;
inline constexpr int32_t kWorkersMax = 256;
inline constexpr int64_t kStepsMax = 1'000'000'000;
inline constexpr int64_t kGrpcMessageBytesMax = 4 << 20;
inline constexpr int64_t kConfigBytesMax = 1 << 20;
inline constexpr int64_t kKeyValueKeyBytesMax = 1024;
inline constexpr int64_t kKeyValueValueBytesMax = 1 << 20;
inline constexpr int64_t kKeyValueEntriesMax = 65'536;
inline constexpr int64_t kKeyValueBytesMax = int64_t{64} << 20;  // keys and values together
inline constexpr int64_t kNameBytesMax = 63;
inline constexpr int64_t kReasonBytesMax = 2048;
inline constexpr int32_t kCallsPerConnectionMax = 1024;  // at the same time
inline constexpr int32_t kReportsPerSecondMax = 1000;    // of one worker, of both kinds together
inline constexpr int32_t kWatchersMax = 64;
inline constexpr int64_t kReportsWaitingMax = 4096;   // to be stored, of all workers
inline constexpr int64_t kStreamMessagesMax = 4096;   // waiting for one worker or watcher
inline constexpr int32_t kScheduleEntriesMax = 4096;  // of freeze.schedule in one order
inline constexpr int64_t kDecisionPageMax = 1000;
inline constexpr int64_t kRequestIdBytesMax = 63;
inline constexpr int64_t kOrdersOpenMax = 64;       // accepted and not carried out
inline constexpr int64_t kOrdersRemembered = 1000;  // carried out; older ones are forgotten
inline constexpr int kCheckpointsAnnouncedMax = 1000;
inline constexpr double kSecondsMax = 1e6;                    // one measured time
inline constexpr int64_t kTensorBytesMax = int64_t{1} << 44;  // one layer's, or one switch's
// The layer store.
inline constexpr int64_t kLayerNameBytesMax = 255;
inline constexpr int64_t kLayerChunkBytesMax = 2 << 20;  // one message of a layer's bytes
inline constexpr int64_t kStoredRunsMax = 1024;
inline constexpr int64_t kCheckpointsMax = 10'000;  // of all runs together
inline constexpr int64_t kUploadsMax = 256;         // contents on their way in
inline constexpr int64_t kCheckpointPageMax = 1000;

}  // namespace smartpipe::limits
