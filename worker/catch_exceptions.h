// The one edge where Torch's exceptions become a status.
#pragma once

#include <exception>
#include <new>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "worker/comm/channel.h"

namespace smartpipe {

/// What `run`, a function that returns a Status or a StatusOr, returns; RESOURCE_EXHAUSTED with the
/// cure when memory is out, INTERNAL with the first line of any other exception.
template <typename Run>
auto CatchExceptions(absl::string_view out_of_memory_cure, const Run& run) -> decltype(run()) {
  try {
    return run();
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError(absl::StrCat("out of memory; ", out_of_memory_cure));
  } catch (const std::exception& error) {
    return absl::InternalError(FirstLine(error));
  }
}

}  // namespace smartpipe
