// SHA-256 of layers, weights and what else is named by its content.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace smartpipe {

/// SHA-256 of some bytes; ordered by its bytes.
struct ContentDigest {
  std::array<uint8_t, 32> bytes{};

  std::string hex() const;  // 64 lower-case digits
  friend auto operator<=>(const ContentDigest&, const ContentDigest&) = default;
  template <typename H>
  friend H AbslHashValue(H h, const ContentDigest& digest) {
    return H::combine(std::move(h), digest.bytes);
  }
};

/// Errors: INVALID_ARGUMENT unless `hex` is 64 lower-case hexadecimal digits.  Threads: pure.
absl::StatusOr<ContentDigest> ParseContentDigest(absl::string_view hex);

/// The digest of bytes that come piece by piece.  Threads: one.  Cost: 0.5-2 GB/s.
class ContentHasher {
 public:
  ContentHasher();
  ~ContentHasher();
  ContentHasher(ContentHasher&&) noexcept;
  ContentHasher& operator=(ContentHasher&&) noexcept;
  void Add(absl::string_view bytes);
  /// Of everything added; call it once, last.
  ContentDigest Finish();

 private:
  struct Context;
  std::unique_ptr<Context> context_;
};

ContentDigest DigestOf(absl::string_view bytes);

}  // namespace smartpipe
