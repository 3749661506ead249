#include "services/rpc/tls.h"

#include <sys/stat.h>

#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "grpcpp/security/tls_certificate_provider.h"
#include "grpcpp/security/tls_credentials_options.h"
#include "services/base/files.h"
#include "services/base/status_macros.h"
#include "services/obs/log.h"
#include "services/rpc/access.h"
#include "services/rpc/openssl.h"

namespace smartpipe {
namespace {

constexpr int64_t kPemBytesMax = 1 << 20;
constexpr unsigned kRefreshSeconds = 1;
constexpr absl::Duration kExpiresSoon = absl::Hours(7 * 24);

absl::Status CheckAllGiven(const TlsFiles& files) {
  std::vector<std::string> missing;
  for (const auto& [path, name] :
       {std::pair(files.ca, "ca"), {files.cert, "cert"}, {files.key, "key"}}) {
    if (path.empty()) missing.push_back(name);
  }
  if (missing.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("TLS needs three files, but --tls-", absl::StrJoin(missing, " and --tls-"),
                   " (in a config tls.", absl::StrJoin(missing, ", tls."), ") ",
                   missing.size() == 1 ? "is" : "are",
                   " not given; give all three, or none for connections without TLS"));
}

absl::StatusOr<X509Ptr> ReadCertificateFile(const std::string& path) {
  SP_ASSIGN_OR_RETURN(const std::string pem, ReadSmallFile(path, kPemBytesMax));
  X509Ptr certificate = ReadCertificate(pem);
  if (certificate != nullptr) return certificate;
  return absl::InvalidArgumentError(absl::StrCat(
      path, " holds no PEM certificate; it must have a line -----BEGIN CERTIFICATE-----"));
}

absl::Status CheckValidity(const X509& certificate, const std::string& path, absl::Time now) {
  const absl::Time begin = ToTime(X509_get0_notBefore(&certificate));
  const absl::Time end = ToTime(X509_get0_notAfter(&certificate));
  const auto text = [](absl::Time time) {
    return absl::FormatTime("%Y-%m-%d %H:%M:%S UTC", time, absl::UTCTimeZone());
  };
  if (now < begin) {
    return absl::FailedPreconditionError(absl::StrCat(
        "the certificate in ", path, " is not valid before ", text(begin), "; now it is ",
        text(now), ": check this machine's clock, or make another certificate"));
  }
  if (now > end) {
    return absl::FailedPreconditionError(
        absl::StrCat("the certificate in ", path, " expired at ", text(end),
                     "; renew it (`smartpipe certs DIR --renew`)"));
  }
  if (end - now < kExpiresSoon) {
    LogWarning("the certificate in ", path, " expires at ", text(end),
               "; renew it: new files are picked up without a restart");
  }
  return absl::OkStatus();
}

void WarnOfMode(const std::string& path) {
  struct stat info;
  if (stat(path.c_str(), &info) != 0 || (info.st_mode & S_IRWXO) == 0) return;
  LogWarning("everyone on this machine can read the private key in ", path, "; run chmod 600 ",
             path);
}

std::shared_ptr<grpc::experimental::CertificateProviderInterface> WatchFiles(
    const TlsFiles& files) {
  return std::make_shared<grpc::experimental::FileWatcherCertificateProvider>(
      files.key, files.cert, files.ca, kRefreshSeconds);
}

}  // namespace

absl::Status CheckTlsFiles(const TlsFiles& files, absl::Time now) {
  if (files.empty()) return absl::OkStatus();
  SP_RETURN_IF_ERROR(CheckAllGiven(files));
  SP_RETURN_IF_ERROR(ReadCertificateFile(files.ca).status());
  SP_ASSIGN_OR_RETURN(const X509Ptr certificate, ReadCertificateFile(files.cert));
  SP_RETURN_IF_ERROR(CheckValidity(*certificate, files.cert, now));
  SP_ASSIGN_OR_RETURN(const std::string key_pem, ReadSmallFile(files.key, kPemBytesMax));
  const PkeyPtr key = ReadPrivateKey(key_pem);
  if (key == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat(files.key,
                     " holds no PEM private key without a passphrase; it must have a "
                     "line -----BEGIN PRIVATE KEY-----"));
  }
  if (EVP_PKEY_eq(X509_get0_pubkey(certificate.get()), key.get()) != 1) {
    return absl::InvalidArgumentError(absl::StrCat("the key in ", files.key,
                                                   " does not belong to the certificate in ",
                                                   files.cert, "; give the two of one pair"));
  }
  WarnOfMode(files.key);
  return absl::OkStatus();
}

std::shared_ptr<grpc::ServerCredentials> MakeServerCredentials(const TlsFiles& files) {
  grpc::experimental::TlsServerCredentialsOptions options(WatchFiles(files));
  options.watch_root_certs();
  options.watch_identity_key_cert_pairs();
  options.set_cert_request_type(GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  std::shared_ptr<grpc::ServerCredentials> credentials =
      grpc::experimental::TlsServerCredentials(options);
  credentials->SetAuthMetadataProcessor(MakeAccessCheck());
  return credentials;
}

std::shared_ptr<grpc::ChannelCredentials> MakeChannelCredentials(const TlsFiles& files) {
  grpc::experimental::TlsChannelCredentialsOptions options;
  options.set_certificate_provider(WatchFiles(files));
  options.watch_root_certs();
  options.watch_identity_key_cert_pairs();
  options.set_certificate_verifier(
      std::make_shared<grpc::experimental::HostNameCertificateVerifier>());
  return grpc::experimental::TlsCredentials(options);
}

}  // namespace smartpipe
