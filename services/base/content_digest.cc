#include "services/base/content_digest.h"

#include <cctype>
#include <cstdlib>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "openssl/evp.h"

namespace smartpipe {
namespace {

// OpenSSL fails here only when it has no memory or no SHA-256 at all.
void Require(bool ok) {
  if (!ok) std::abort();
}

}  // namespace

std::string ContentDigest::hex() const {
  return absl::BytesToHexString(
      absl::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
}

absl::StatusOr<ContentDigest> ParseContentDigest(absl::string_view hex) {
  ContentDigest digest;
  bool valid = hex.size() == 2 * digest.bytes.size();
  for (const char c : hex) valid = valid && ((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'));
  if (!valid) {
    return absl::InvalidArgumentError(absl::StrCat(
        "sha256 is not 64 lower-case hexadecimal digits (it has ", hex.size(), " characters)"));
  }
  const std::string bytes = absl::HexStringToBytes(hex);
  for (size_t i = 0; i < digest.bytes.size(); ++i) {
    digest.bytes[i] = static_cast<uint8_t>(bytes[i]);
  }
  return digest;
}

struct ContentHasher::Context {
  Context() : evp(EVP_MD_CTX_new()) {
    Require(evp != nullptr && EVP_DigestInit_ex(evp, EVP_sha256(), nullptr) == 1);
  }
  ~Context() { EVP_MD_CTX_free(evp); }
  EVP_MD_CTX* evp;
};

ContentHasher::ContentHasher() : context_(std::make_unique<Context>()) {}
ContentHasher::~ContentHasher() = default;
ContentHasher::ContentHasher(ContentHasher&&) noexcept = default;
ContentHasher& ContentHasher::operator=(ContentHasher&&) noexcept = default;

void ContentHasher::Add(absl::string_view bytes) {
  Require(EVP_DigestUpdate(context_->evp, bytes.data(), bytes.size()) == 1);
}

ContentDigest ContentHasher::Finish() {
  ContentDigest digest;
  unsigned int size = 0;
  Require(EVP_DigestFinal_ex(context_->evp, digest.bytes.data(), &size) == 1 &&
          size == digest.bytes.size());
  return digest;
}

ContentDigest DigestOf(absl::string_view bytes) {
  ContentHasher hasher;
  hasher.Add(bytes);
  return hasher.Finish();
}

}  // namespace smartpipe
