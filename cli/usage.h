// What to say about a command line that cannot be understood.
#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace smartpipe {

/// The entry of `names` that a person may have meant: at most a third of the letters differ; empty
/// if there is none.  Threads: pure.
std::string LikelyName(absl::string_view name, const std::vector<std::string>& names);

/// About a command that does not exist: the near one, else all `commands`.
std::string UnknownCommandText(absl::string_view name, const std::vector<std::string>& commands);

/// The first option in `words` (a command line) that is none of `options` ("--svg"), without its
/// value; empty if there is none.
std::string UnknownOption(const std::vector<std::string>& words,
                          const std::vector<std::string>& options);

/// A hint on it: the config key of that name if `takes_set`, with the value that was given, else
/// the near option; empty if neither exists.
std::string OptionHint(const std::vector<std::string>& words,
                       const std::vector<std::string>& options, bool takes_set);

}  // namespace smartpipe
