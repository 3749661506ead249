#include "services/rpc/certificates.h"

#include <arpa/inet.h>

#include <algorithm>
#include <initializer_list>
#include <string_view>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "openssl/asn1.h"
#include "openssl/bn.h"
#include "openssl/ec.h"
#include "openssl/pem.h"
#include "openssl/x509v3.h"
#include "services/base/status_macros.h"
#include "services/rpc/openssl.h"

namespace smartpipe {
namespace {

using BignumPtr = std::unique_ptr<BIGNUM, OpensslDeleter<BN_free>>;
using IpPtr = std::unique_ptr<ASN1_OCTET_STRING, OpensslDeleter<ASN1_OCTET_STRING_free>>;
using NamesPtr = std::unique_ptr<GENERAL_NAMES, OpensslDeleter<GENERAL_NAMES_free>>;
using ExtensionPtr = std::unique_ptr<X509_EXTENSION, OpensslDeleter<X509_EXTENSION_free>>;

constexpr size_t kNameBytesMax = 64;  // of a common name
constexpr int kSerialBits = 159;      // 20 bytes and positive, as the standard wants
constexpr long kVersion3 = 2;

absl::Status Failed(absl::string_view what) {
  return absl::InternalError(
      absl::StrCat("cannot make a certificate: ", what, " failed: ", TakeOpensslError()));
}

bool IsIpAddress(const std::string& host) { return IpPtr(a2i_IPADDRESS(host.c_str())) != nullptr; }

// Also keeps what has a meaning in OpenSSL's lists of extensions out of them.
bool IsHost(const std::string& host) {
  if (host.empty() || host.size() > 253) return false;
  if (IsIpAddress(host)) return true;
  return std::all_of(host.begin(), host.end(), [](char c) {
    return absl::ascii_isalnum(c) || c == '.' || c == '-' || c == '_' || c == '*';
  });
}

/// Name, times, number and public key; to be signed.
absl::StatusOr<X509Ptr> MakeUnsigned(const std::string& name, const Validity& validity,
                                     EVP_PKEY* key) {
  if (name.empty() || name.size() > kNameBytesMax) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the name \"", name, "\" of a certificate must have 1 to ", kNameBytesMax, " bytes"));
  }
  X509Ptr certificate(X509_new());
  const BignumPtr serial(BN_new());
  X509_NAME* subject = X509_get_subject_name(certificate.get());
  const bool ok =
      X509_set_version(certificate.get(), kVersion3) == 1 &&
      BN_rand(serial.get(), kSerialBits, BN_RAND_TOP_ANY, BN_RAND_BOTTOM_ANY) == 1 &&
      BN_to_ASN1_INTEGER(serial.get(), X509_get_serialNumber(certificate.get())) != nullptr &&
      ASN1_TIME_set(X509_getm_notBefore(certificate.get()), absl::ToTimeT(validity.begin)) !=
          nullptr &&
      ASN1_TIME_set(X509_getm_notAfter(certificate.get()), absl::ToTimeT(validity.end)) !=
          nullptr &&
      X509_NAME_add_entry_by_NID(subject, NID_commonName, MBSTRING_UTF8,
                                 reinterpret_cast<const unsigned char*>(name.data()),
                                 static_cast<int>(name.size()), -1, 0) == 1 &&
      X509_set_pubkey(certificate.get(), key) == 1;
  if (!ok) return Failed("its fields");
  return certificate;
}

absl::Status AddExtensions(X509* certificate, X509* issuer,
                           const std::vector<std::pair<int, std::string>>& extensions) {
  X509V3_CTX context;
  X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
  for (const auto& [kind, value] : extensions) {
    const ExtensionPtr extension(X509V3_EXT_conf_nid(nullptr, &context, kind, value.c_str()));
    if (extension == nullptr || X509_add_ext(certificate, extension.get(), -1) != 1) {
      return Failed(absl::StrCat(OBJ_nid2sn(kind), " = ", value));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> ToText(const BioPtr& bio) {
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio.get(), &data);
  if (size <= 0) return Failed("writing it");
  return std::string(data, static_cast<size_t>(size));
}

absl::StatusOr<Certificate> SignAndWrite(X509* certificate, EVP_PKEY* key, EVP_PKEY* issuer_key) {
  if (X509_sign(certificate, issuer_key, EVP_sha256()) == 0) return Failed("its signature");
  const BioPtr cert_out(BIO_new(BIO_s_mem())), key_out(BIO_new(BIO_s_mem()));
  if (PEM_write_bio_X509(cert_out.get(), certificate) != 1 ||
      PEM_write_bio_PrivateKey(key_out.get(), key, nullptr, nullptr, 0, nullptr, nullptr) != 1) {
    return Failed("writing it");
  }
  Certificate result;
  SP_ASSIGN_OR_RETURN(result.cert, ToText(cert_out));
  SP_ASSIGN_OR_RETURN(result.key, ToText(key_out));
  return result;
}

Validity ValidityOf(const X509& certificate) {
  return {ToTime(X509_get0_notBefore(&certificate)), ToTime(X509_get0_notAfter(&certificate))};
}

absl::Status NoCertificate() { return absl::InvalidArgumentError("it is no PEM certificate"); }

// Of 4 or 16 bytes.
std::string AddressText(const std::string& bytes) {
  char text[INET6_ADDRSTRLEN] = "";
  inet_ntop(bytes.size() == 4 ? AF_INET : AF_INET6, bytes.data(), text, sizeof(text));
  return text;
}

std::string AlternativeNames(const CertificateSubject& subject) {
  std::vector<std::string> names;
  for (const Role role : kRoles) {
    if (subject.roles.Has(role)) names.push_back(absl::StrCat("URI:", RoleUri(role)));
  }
  for (const std::string& host : subject.hosts) {
    names.push_back(absl::StrCat(IsIpAddress(host) ? "IP:" : "DNS:", host));
  }
  return absl::StrJoin(names, ",");
}

}  // namespace

absl::StatusOr<Certificate> MakeAuthority(const std::string& name, const Validity& validity) {
  const PkeyPtr key(EVP_EC_gen("P-256"));
  if (key == nullptr) return Failed("its key");
  SP_ASSIGN_OR_RETURN(const X509Ptr certificate, MakeUnsigned(name, validity, key.get()));
  if (X509_set_issuer_name(certificate.get(), X509_get_subject_name(certificate.get())) != 1)
    return Failed("its issuer");
  SP_RETURN_IF_ERROR(AddExtensions(certificate.get(), certificate.get(),
                                   {{NID_basic_constraints, "critical,CA:TRUE,pathlen:0"},
                                    {NID_key_usage, "critical,keyCertSign,cRLSign"},
                                    {NID_subject_key_identifier, "hash"}}));
  return SignAndWrite(certificate.get(), key.get(), key.get());
}

absl::StatusOr<Certificate> MakeCertificate(const Certificate& authority,
                                            const CertificateSubject& subject,
                                            const Validity& validity) {
  const X509Ptr issuer = ReadCertificate(authority.cert);
  const PkeyPtr issuer_key = ReadPrivateKey(authority.key);
  if (issuer == nullptr || issuer_key == nullptr ||
      EVP_PKEY_eq(X509_get0_pubkey(issuer.get()), issuer_key.get()) != 1) {
    return absl::InvalidArgumentError(
        "the authority's certificate and key are not PEM, or not of one pair");
  }
  for (const std::string& host : subject.hosts) {
    if (IsHost(host)) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        "\"", host, "\" is not a host; give a name like gpu-7.lan, or an address without port"));
  }
  const PkeyPtr key(EVP_EC_gen("P-256"));
  if (key == nullptr) return Failed("its key");
  const Validity within = {validity.begin, std::min(validity.end, ValidityOf(*issuer).end)};
  SP_ASSIGN_OR_RETURN(const X509Ptr certificate, MakeUnsigned(subject.name, within, key.get()));
  if (X509_set_issuer_name(certificate.get(), X509_get_subject_name(issuer.get())) != 1)
    return Failed("its issuer");
  std::vector<std::pair<int, std::string>> extensions = {
      {NID_basic_constraints, "critical,CA:FALSE"},
      {NID_key_usage, "critical,digitalSignature"},
      {NID_ext_key_usage, subject.hosts.empty() ? "clientAuth" : "serverAuth,clientAuth"},
      {NID_subject_key_identifier, "hash"},
      {NID_authority_key_identifier, "keyid:always"}};
  if (const std::string names = AlternativeNames(subject); !names.empty())
    extensions.emplace_back(NID_subject_alt_name, names);
  SP_RETURN_IF_ERROR(AddExtensions(certificate.get(), issuer.get(), extensions));
  return SignAndWrite(certificate.get(), key.get(), issuer_key.get());
}

absl::StatusOr<Validity> ValidityOf(const std::string& cert_pem) {
  const X509Ptr certificate = ReadCertificate(cert_pem);
  if (certificate == nullptr) return NoCertificate();
  return ValidityOf(*certificate);
}

absl::StatusOr<std::vector<std::string>> HostsOf(const std::string& cert_pem) {
  const X509Ptr certificate = ReadCertificate(cert_pem);
  if (certificate == nullptr) return NoCertificate();
  std::vector<std::string> hosts;
  const NamesPtr names(static_cast<GENERAL_NAMES*>(
      X509_get_ext_d2i(certificate.get(), NID_subject_alt_name, nullptr, nullptr)));
  for (int i = 0; i < sk_GENERAL_NAME_num(names.get()); ++i) {  // -1 for none
    int kind = 0;
    const auto* value = static_cast<const ASN1_STRING*>(
        GENERAL_NAME_get0_value(sk_GENERAL_NAME_value(names.get(), i), &kind));
    if (kind != GEN_DNS && kind != GEN_IPADD) continue;
    const std::string bytes(reinterpret_cast<const char*>(ASN1_STRING_get0_data(value)),
                            static_cast<size_t>(ASN1_STRING_length(value)));
    hosts.push_back(kind == GEN_DNS ? bytes : AddressText(bytes));
  }
  return hosts;
}

std::string CanonicalHost(const std::string& host) {
  const IpPtr address(a2i_IPADDRESS(host.c_str()));
  if (address == nullptr) return host;
  return AddressText(
      std::string(reinterpret_cast<const char*>(ASN1_STRING_get0_data(address.get())),
                  static_cast<size_t>(ASN1_STRING_length(address.get()))));
}

}  // namespace smartpipe
