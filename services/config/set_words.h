// Which --set words a problem of the config comes from.
#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace smartpipe {

/// The --set words behind a problem that names `key` or, in `message`, other keys:
/// ' (from --set "pipeline.stages=9")'; empty if there are none. Of words for the same key the last
/// counts, as for the config.  Threads: pure.
std::string SetOrigin(const std::vector<std::string>& sets, absl::string_view key,
                      absl::string_view message);

}  // namespace smartpipe
