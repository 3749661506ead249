// Small files as a whole.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace smartpipe {

/// The whole file. Errors: the system's reason with the path; INVALID_ARGUMENT when it is a
/// folder or has more than `bytes_max`.
absl::StatusOr<std::string> ReadSmallFile(const std::string& path, int64_t bytes_max);

/// Writes a temporary file beside `path`, syncs it and renames it: readers see the old text or the
/// new one, never a part. A symbolic link stays and its target is replaced.
/// Errors: the system's reason with the path; the temporary file is removed then;
/// FAILED_PRECONDITION when the path is there and no plain file.
absl::Status WriteFileAtomically(const std::string& path, const std::string& text);
/// The same for a secret: only this user may read the file, at no time anyone else.
absl::Status WriteSecretAtomically(const std::string& path, const std::string& text);

}  // namespace smartpipe
