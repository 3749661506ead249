// OpenSSL's objects with owners.  Internal to services/rpc.
#pragma once

#include <memory>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "openssl/bio.h"
#include "openssl/evp.h"
#include "openssl/x509.h"

namespace smartpipe {

template <auto Free>
struct OpensslDeleter {
  template <typename T>
  void operator()(T* object) const {
    Free(object);
  }
};
using BioPtr = std::unique_ptr<BIO, OpensslDeleter<BIO_free>>;
using X509Ptr = std::unique_ptr<X509, OpensslDeleter<X509_free>>;
using PkeyPtr = std::unique_ptr<EVP_PKEY, OpensslDeleter<EVP_PKEY_free>>;

/// Null when the text does not begin, but for comments, with a certificate.
X509Ptr ReadCertificate(absl::string_view pem);
/// Null when there is none, or one with a passphrase, which is never asked for.
PkeyPtr ReadPrivateKey(absl::string_view pem);
absl::Time ToTime(const ASN1_TIME* time);
/// Takes OpenSSL's oldest error of this thread and forgets the rest.
std::string TakeOpensslError();

}  // namespace smartpipe
