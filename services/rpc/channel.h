// Client channels and deadlines.
#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "grpcpp/grpcpp.h"
#include "services/rpc/keepalive.h"
#include "services/rpc/tls.h"

namespace smartpipe {

struct ChannelOptions {
  std::string address;  // "127.0.0.1:1234"
  KeepaliveOptions keepalive;
  TlsFiles tls;  // none = plaintext; with them the server must prove that it is the address's host
};

/// A channel of its own to a server (connections are not shared between channels, no proxy is
/// used). Not connected yet: the first call or WaitConnected does that.  Threads: any.
std::shared_ptr<grpc::Channel> MakeChannel(const ChannelOptions& options);

/// `tls`: as of the channel.
/// Errors: UNAVAILABLE "nobody answers at ADDRESS within 10s" .
absl::Status WaitConnected(grpc::Channel& channel, const std::string& address,
                           absl::Duration timeout, const TlsFiles& tls = {});

/// Ends the call after `timeout` from now; an infinite one sets nothing.
void SetTimeout(grpc::ClientContext& context, absl::Duration timeout);

}  // namespace smartpipe
