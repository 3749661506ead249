// What a person should know of a good config before it runs.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cli/preflight.h"

namespace smartpipe {

/// "convnet on fashion_mnist, 4 stages on 2 workers (1f1b), policy smartpipe, seed 1; 1500 steps,
/// 250 an epoch, decisions every 62 steps".
std::string Headline(const CheckedConfig& checked);

/// Sentences on what is allowed but seldom meant: more compute threads than the machine's
/// `num_cores` (0 = not known), a run in which nothing can ever freeze.  Threads: pure.
std::vector<std::string> ConfigNotes(const CheckedConfig& checked, int64_t num_cores);

}  // namespace smartpipe
