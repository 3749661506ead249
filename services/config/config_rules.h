// Rules over several keys.  Internal to services/config.
#pragma once

#include <functional>
#include <string>

#include "absl/strings/string_view.h"
#include "services/config/run_config.h"

namespace smartpipe {

/// Checks the combinations of a config whose keys were each read.
///
/// usable(key): false when the key's own value was refused, so that a rule over it would only
/// repeat the mistake. report(key, message): called once per broken rule.  Threads: pure.
void CheckRules(
    const RunConfig& config, const std::function<bool(absl::string_view key)>& usable,
    const std::function<void(const std::string& key, const std::string& message)>& report);

}  // namespace smartpipe
