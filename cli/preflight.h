// Everything that can be checked before a process starts: the config, the files it names, the run
// directory.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "services/config/run_config.h"

namespace smartpipe {

/// A config that passed all checks.
struct CheckedConfig {
  RunConfig config;               // paths made absolute
  std::optional<RunShape> shape;  // none when the training set's size is known to the workers only
  std::optional<int64_t> num_test_samples;  // that an evaluation uses; none likewise
};

/// Reads and checks a config file with its --set words, and the files that it names.
/// Errors: INVALID_ARGUMENT with one line per problem, "<path>:<line>: <key>: <what is wrong and
/// the cure>"; FAILED_PRECONDITION when the reason is no key: the file cannot be read or is no
/// TOML, or a file that it names is not there.
absl::StatusOr<CheckedConfig> LoadConfig(const std::string& path,
                                         const std::vector<std::string>& sets);

/// Makes the run directory and writes `config` into it as config.toml.
///
/// requested: the user's wish; empty = "runs/<utc time>-<label>", numbered if it exists.
/// Output: its path. Errors: FAILED_PRECONDITION when it exists and is not empty, when too little
/// space is free, or when it cannot be written; each with the cure.
absl::StatusOr<std::string> MakeRunDir(const std::string& requested, const std::string& label,
                                       const RunConfig& config, absl::Time now);

/// Whether a file can be created at `path`: its folder exists and can be written, and it is no
/// folder itself.
absl::Status CheckWritable(const std::string& path);

}  // namespace smartpipe
