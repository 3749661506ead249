#include "services/rpc/channel.h"

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "services/base/limits.h"
#include "services/rpc/quiet.h"

namespace smartpipe {

std::shared_ptr<grpc::Channel> MakeChannel(const ChannelOptions& options) {
  QuietGrpcLog();
  LookAfterConnections();
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(limits::kGrpcMessageBytesMax);
  arguments.SetMaxSendMessageSize(limits::kGrpcMessageBytesMax);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS,
                   static_cast<int>(absl::ToInt64Milliseconds(options.keepalive.period)));
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS,
                   static_cast<int>(absl::ToInt64Milliseconds(options.keepalive.timeout)));
  arguments.SetInt(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  // Also the longest time that one attempt may take: on a busy machine a handshake can take its
  // time.
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 3000);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1000);
  // Calls inside a cluster or a machine must not follow http_proxy.
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return grpc::CreateCustomChannel(options.address,
                                   options.tls.empty() ? grpc::InsecureChannelCredentials()
                                                       : MakeChannelCredentials(options.tls),
                                   arguments);
}

absl::Status WaitConnected(grpc::Channel& channel, const std::string& address,
                           absl::Duration timeout, const TlsFiles& tls) {
  if (channel.WaitForConnected(absl::ToChronoTime(absl::Now() + timeout))) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat(
      "nobody answers at ", address, " within ", absl::FormatDuration(timeout),
      // A server that refuses a client closes the connection without a word.
      tls.empty() ? ", or whoever does expects TLS (--tls-ca, --tls-cert, --tls-key)"
                  : absl::StrCat(", or whoever does refuses the certificate in ", tls.cert,
                                 ", or has one that does not name this host; the "
                                 "logs of both sides say why")));
}

void SetTimeout(grpc::ClientContext& context, absl::Duration timeout) {
  if (timeout == absl::InfiniteDuration()) return;
  context.set_deadline(absl::ToChronoTime(absl::Now() + timeout));
}

}  // namespace smartpipe
