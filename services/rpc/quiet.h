// What gRPC does by itself: its log lines, its look at connections.
#pragma once

namespace smartpipe {

/// gRPC writes its internal errors to stderr in a form that means nothing to the users of ours;
/// every failure of a call reaches us as a status. Silences them unless the environment asks for
/// them by GRPC_VERBOSITY or GRPC_TRACE. What they tell of refused connections is logged in our
/// words.
void QuietGrpcLog();

/// A connection only gets on while some call waits, and calls to a service that is gone fail at
/// once. In between gRPC looks every 5 s, longer than one attempt to connect may take: with TLS,
/// whose handshake takes several turns, a service that was started again would hardly ever be
/// reached by a process that only calls. Here it looks every 100 ms. Before the first channel.
void LookAfterConnections();

}  // namespace smartpipe
