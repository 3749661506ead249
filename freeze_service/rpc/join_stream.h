// One open Join stream: an ordered queue of messages to one worker.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <utility>

#include "freeze_service/rpc/message_stream.h"
#include "services/base/ids.h"
#include "smartpipe/v1/freeze_service.pb.h"

namespace smartpipe {

/// Tells at once when the worker has gone.  Threads: any.
class JoinStream final : public MessageStream<v1::JoinResponse> {
 public:
  using BrokenCallback = std::function<void(JoinStream&)>;

  /// The stream of a worker; `on_broken` is called when the connection broke and when the stream
  /// is done, so at least once, without a lock held.
  static std::shared_ptr<JoinStream> Create(WorkerId worker, int64_t incarnation,
                                            BrokenCallback on_broken);

  const WorkerId& worker() const { return worker_; }
  int64_t incarnation() const { return incarnation_; }

 private:
  JoinStream(WorkerId worker, int64_t incarnation, BrokenCallback on_broken);
  void OnBroken() override { on_broken_(*this); }

  const WorkerId worker_;
  const int64_t incarnation_;
  const BrokenCallback on_broken_;
};

}  // namespace smartpipe
