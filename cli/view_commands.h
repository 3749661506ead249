// `smartpipe status`, `layers` and `decisions`: what a run is doing, and why.
#pragma once

#include "absl/status/statusor.h"
#include "cli/run_client.h"
#include "cli/run_views.h"

namespace smartpipe {

struct ViewArguments {
  RunTarget target;
  bool json = false;
  bool changes_only = false;  // of decisions
};

/// Each adds its command and its options; they are read into `arguments`.
CLI::App* AddStatusCommand(CLI::App& app, ViewArguments& arguments);
CLI::App* AddLayersCommand(CLI::App& app, ViewArguments& arguments);
CLI::App* AddDecisionsCommand(CLI::App& app, ViewArguments& arguments);

/// Each prints its text or JSON. Returns an exit code.
int StatusCommand(const ViewArguments& arguments);
int LayersCommand(const ViewArguments& arguments);
int DecisionsCommand(const ViewArguments& arguments);

/// Asks for all that StatusText needs.  Errors: those of the calls.
absl::StatusOr<RunView> FetchRunView(v1::FreezeService::StubInterface& stub);

/// The message as one JSON object, with the names of the proto file and every field.
std::string MessageJson(const google::protobuf::Message& message);

}  // namespace smartpipe
