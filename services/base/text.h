// What texts from outside may hold.
#pragma once

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

namespace smartpipe {

/// True if `text` is UTF-8 as protobuf's strings must be: no overlong form, no surrogate, at most
/// U+10FFFF.
inline bool IsUtf8(absl::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const uint8_t lead = static_cast<uint8_t>(text[i]);
    const int num_more = lead < 0x80   ? 0
                         : lead < 0xc2 ? -1
                         : lead < 0xe0 ? 1
                         : lead < 0xf0 ? 2
                         : lead < 0xf5 ? 3
                                       : -1;
    if (num_more < 0 || i + num_more >= text.size()) return false;
    uint32_t code = num_more == 0 ? lead : lead & (0x3f >> num_more);
    for (int k = 1; k <= num_more; ++k) {
      const uint8_t next = static_cast<uint8_t>(text[i + k]);
      if ((next & 0xc0) != 0x80) return false;
      code = code << 6 | (next & 0x3f);
    }
    const uint32_t least = num_more == 2 ? 0x800 : num_more == 3 ? 0x10000 : 0;
    if (code < least || code > 0x10ffff || (code >= 0xd800 && code < 0xe000)) return false;
    i += 1 + num_more;
  }
  return true;
}

/// `text` on lines of its own: other control characters than newline and tab as \xNN, so that no
/// message can forge a line or steer a terminal; lines after the first begin with "  | ".
inline std::string ForLog(absl::string_view text) {
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '\n') {
      out += "\n  | ";
    } else if ((byte < 0x20 && c != '\t') || byte == 0x7f) {
      constexpr char kHex[] = "0123456789abcdef";
      out += {'\\', 'x', kHex[byte >> 4], kHex[byte & 15]};
    } else {
      out += c;
    }
  }
  return out;
}

}  // namespace smartpipe
