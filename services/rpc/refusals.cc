#include "services/rpc/refusals.h"

#include "absl/base/thread_annotations.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "openssl/ssl.h"
#include "services/obs/log.h"

namespace smartpipe {
namespace {

constexpr absl::Duration kPeriod = absl::Minutes(1);
// Strangers choose some of the texts.
constexpr size_t kTextsMax = 1000;

/// What the last alert that this thread sent tells; gRPC logs the failure right after it.
struct SentAlert {
  bool by_server = false;
  long verify_result = X509_V_OK;
};
thread_local SentAlert sent_alert;

void OnTlsMessage(int is_sent, int /*version*/, int content_type, const void* /*bytes*/,
                  size_t /*size*/, SSL* connection, void* /*argument*/) {
  if (is_sent == 0 || content_type != SSL3_RT_ALERT) return;
  sent_alert = {.by_server = SSL_is_server(connection) == 1,
                .verify_result = SSL_get_verify_result(connection)};
}

void OnNewTlsContext(void* context, void* /*value*/, CRYPTO_EX_DATA* /*data*/, int /*index*/,
                     long /*number*/, void* /*argument*/) {
  SSL_CTX_set_msg_callback(static_cast<SSL_CTX*>(context), OnTlsMessage);
}

std::string ExplainVerification(const SentAlert& alert) {
  const char* cure = alert.verify_result == X509_V_ERR_CERT_HAS_EXPIRED
                         ? "; renew it (`smartpipe certs DIR --renew`)"
                         : "; it must come from an authority in the file of --tls-ca";
  const char* problem = alert.verify_result == X509_V_OK
                            ? "unknown"
                            : X509_verify_cert_error_string(alert.verify_result);
  return alert.by_server ? absl::StrCat(
                               "refused a connection: the client's certificate is not "
                               "accepted (",
                               problem, ")", cure)
                         : absl::StrCat(
                               "gave up a connection: the server's certificate is not "
                               "accepted (",
                               problem, ")", cure);
}

}  // namespace

bool OncePerMinute::Pass(const std::string& text, absl::Time now) {
  std::erase_if(passed_, [now](const auto& entry) { return now - entry.second >= kPeriod; });
  return passed_.size() < kTextsMax && passed_.try_emplace(text, now).second;
}

void LogRefusal(const std::string& sentence) {
  static absl::Mutex mutex(absl::kConstInit);
  static auto* const once = new OncePerMinute;
  {
    absl::MutexLock lock(&mutex);
    if (!once->Pass(sentence, absl::Now())) return;
  }
  LogWarning(sentence, " (said once a minute at most)");
}

void WatchTlsAlerts() {
  // The only door to the contexts that gRPC makes.
  static const int index = SSL_CTX_get_ex_new_index(0, nullptr, OnNewTlsContext, nullptr, nullptr);
  (void)index;
}

std::string ExplainGrpcError(absl::string_view message) {
  const SentAlert alert = std::exchange(sent_alert, SentAlert());
  if (absl::StrContains(message, "Update handshaker factory failed")) {
    return "the TLS files on the disk cannot be used (not PEM, or the key does not belong to the "
           "certificate): connections are refused until they are mended";
  }
  if (absl::ConsumePrefix(&message, "No match found for server name: ")) {
    return absl::StrCat("a client dials ", absl::StripSuffix(message, "."),
                        " and will give up: the certificate of this service does not name that "
                        "host; dial a name that it has, or make it with `smartpipe certs --host`");
  }
  if (!absl::ConsumePrefix(&message, "Handshake failed with fatal error ")) return "";
  if (absl::StrContains(message, "peer did not return a certificate")) {
    return "refused a connection: the client has no certificate; start it with --tls-ca, "
           "--tls-cert and --tls-key";
  }
  if (absl::StrContains(message, "certificate verify failed")) return ExplainVerification(alert);
  // So a client of a plaintext server fails, too.
  if (absl::StrContains(message, "wrong version number") ||
      absl::StrContains(message, "http request")) {
    return "refused a connection: the other side does not speak TLS; give both sides --tls-ca, "
           "--tls-cert and --tls-key, or neither";
  }
  return absl::StrCat("refused a connection: the TLS handshake failed (",
                      absl::StripSuffix(message, "."), ")");
}

}  // namespace smartpipe
