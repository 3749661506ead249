#include "freeze_service/rpc/join_stream.h"

#include "services/base/limits.h"

namespace smartpipe {

JoinStream::JoinStream(WorkerId worker, int64_t incarnation, BrokenCallback on_broken)
    : MessageStream(limits::kStreamMessagesMax, "the worker does not read its stream"),
      worker_(std::move(worker)),
      incarnation_(incarnation),
      on_broken_(std::move(on_broken)) {}

std::shared_ptr<JoinStream> JoinStream::Create(WorkerId worker, int64_t incarnation,
                                               BrokenCallback on_broken) {
  return Own(new JoinStream(std::move(worker), incarnation, std::move(on_broken)));
}

}  // namespace smartpipe
