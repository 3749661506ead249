// gRPC's own log lines.
#pragma once

namespace smartpipe {

/// gRPC writes its internal errors to stderr in a form that means nothing to the users of ours;
/// every failure of a call reaches us as a status. Silences them unless the environment asks for
/// them by GRPC_VERBOSITY or GRPC_TRACE. What they tell of refused connections is logged in our
/// words.
void QuietGrpcLog();

}  // namespace smartpipe
