// Log lines for people: to stderr, and to a file if one is given.
//
//   2026-01-31 12:00:00.123 info freeze_service: verdict for boundary 3 (step 300): ...
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace smartpipe {

enum class LogLevel { kDebug, kInfo, kWarning, kError };

struct LogOptions {
  std::string process;         // shown in every line: "freeze_service", "worker w0"
  std::string level = "info";  // debug | info | warning | error
  std::string file;            // appended to; "" = stderr only
  bool to_stderr = true;
};

/// Sets up the process's log. Lines before it go to stderr at level info. Warnings and errors are
/// flushed at once, the rest within a second. Errors: INVALID_ARGUMENT for an unknown level; the
/// system's reason when the file cannot be opened. Threads: once, before other threads log.
absl::Status InitLogging(const LogOptions& options);

/// Names for a --log-level flag.
inline constexpr const char* kLogLevelNames[] = {"debug", "info", "warning", "error"};

/// Writes one line; `message` is never used as a format.  Threads: any.
void Log(LogLevel level, absl::string_view message);

template <typename... Parts>
void LogDebug(const Parts&... parts) {
  Log(LogLevel::kDebug, absl::StrCat(parts...));
}
template <typename... Parts>
void LogInfo(const Parts&... parts) {
  Log(LogLevel::kInfo, absl::StrCat(parts...));
}
template <typename... Parts>
void LogWarning(const Parts&... parts) {
  Log(LogLevel::kWarning, absl::StrCat(parts...));
}
template <typename... Parts>
void LogError(const Parts&... parts) {
  Log(LogLevel::kError, absl::StrCat(parts...));
}

}  // namespace smartpipe
