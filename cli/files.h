// Where the command finds its neighbours, and its small files.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "services/base/files.h"

namespace smartpipe {

/// Folder of the running program.
absl::StatusOr<std::string> ProgramFolder();

}  // namespace smartpipe
