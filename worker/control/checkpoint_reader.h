// Finds and fetches checkpoints in the parameter service.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "services/base/ids.h"
#include "services/parameter_service/client.h"
#include "worker/control/checkpoint_source.h"

namespace smartpipe {

/// A checkpoint that turns out to be gone or damaged is UNAVAILABLE: another generation will find
/// another one.  Threads: Cancel from any, the others from one.
class CheckpointReader final : public CheckpointSource {
 public:
  CheckpointReader(std::shared_ptr<grpc::Channel> channel, std::string run)
      : client_({.channel = std::move(channel)}), run_(std::move(run)) {}

  /// Steps of the complete checkpoints without damage, ascending; the newest ones if there are
  /// more than can be announced.
  absl::StatusOr<std::vector<Step>> ListSteps();
  absl::StatusOr<std::string> Get(Step step, LayerIndex layer) override;
  /// Ends the call under way and all later ones.
  void Cancel() { client_.Cancel(); }

 private:
  ParameterClient client_;
  const std::string run_;
};

}  // namespace smartpipe
