#include "worker/data/idx.h"

#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <limits>
#include <memory>
#include <system_error>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "services/base/status_macros.h"

namespace smartpipe {
namespace {

constexpr uint32_t kUnsignedByteMagic = 0x00000800;  // plus the number of dimensions
constexpr int64_t kGzipRatioMax = 1032;              // what deflate can reach at best
constexpr int kGzipWindowBits = 15 + 16;             // 16: with gzip's header and checksum

absl::Status Damaged(const std::string& path, absl::string_view what) {
  return absl::DataLossError(
      absl::StrCat(path, ": ", what, "; the file is damaged or of another kind: get it again"));
}

absl::StatusOr<std::vector<uint8_t>> ReadWhole(const std::string& path) {
  std::unique_ptr<FILE, int (*)(FILE*)> file(std::fopen(path.c_str(), "rb"), &std::fclose);
  if (file == nullptr && errno == ENOENT)
    return absl::NotFoundError(absl::StrCat(path, ": no such file"));
  if (file == nullptr) return absl::DataLossError(absl::StrCat(path, ": ", std::strerror(errno)));
  std::error_code error;
  const uintmax_t size = std::filesystem::file_size(path, error);
  if (error) return absl::DataLossError(absl::StrCat(path, ": ", error.message()));
  std::vector<uint8_t> bytes(size);
  if (std::fread(bytes.data(), 1, bytes.size(), file.get()) != bytes.size()) {
    return absl::DataLossError(absl::StrCat(path, ": cannot read ", size, " bytes"));
  }
  return bytes;
}

/// The content of a file as a stream, unpacked on the way where it is gzip.
class Content {
 public:
  explicit Content(const std::vector<uint8_t>& bytes) : bytes_(bytes) {
    packed_ = bytes.size() >= 2 && bytes[0] == 0x1f && bytes[1] == 0x8b;
    if (!packed_) return;
    stream_.next_in = const_cast<Bytef*>(bytes.data());
    stream_.avail_in = static_cast<uInt>(bytes.size());
    failed_ = bytes.size() > std::numeric_limits<uInt>::max() ||
              inflateInit2(&stream_, kGzipWindowBits) != Z_OK;
  }
  ~Content() {
    if (packed_) inflateEnd(&stream_);
  }
  Content(const Content&) = delete;
  Content& operator=(const Content&) = delete;

  /// Up to `count` bytes; fewer only at the end of the content or where it is damaged.
  size_t Read(uint8_t* out, size_t count) {
    if (!packed_) {
      const size_t taken = std::min(count, bytes_.size() - taken_);
      std::copy_n(bytes_.begin() + static_cast<ptrdiff_t>(taken_), taken, out);
      taken_ += taken;
      return taken;
    }
    size_t taken = 0;
    while (taken < count && !failed_ && !ended_) {
      stream_.next_out = out + taken;
      const size_t wanted = std::min<size_t>(count - taken, std::numeric_limits<uInt>::max());
      stream_.avail_out = static_cast<uInt>(wanted);
      const int result = inflate(&stream_, Z_NO_FLUSH);
      taken += wanted - stream_.avail_out;
      ended_ = result == Z_STREAM_END;
      failed_ = !ended_ && result != Z_OK;
    }
    return taken;
  }

  /// Whether nothing follows what was read, and the gzip checksum fits.
  bool AtEnd() {
    uint8_t extra;
    if (Read(&extra, 1) != 0) return false;
    return packed_ ? ended_ && stream_.avail_in == 0 : taken_ == bytes_.size();
  }

  /// More than the content can hold, whatever it is.
  int64_t size_max() const {
    return static_cast<int64_t>(bytes_.size()) * (packed_ ? kGzipRatioMax : 1);
  }

 private:
  const std::vector<uint8_t>& bytes_;
  bool packed_ = false, failed_ = false, ended_ = false;
  size_t taken_ = 0;
  z_stream stream_ = {};
};

uint32_t BigEndian(const uint8_t* bytes) {
  return uint32_t{bytes[0]} << 24 | uint32_t{bytes[1]} << 16 | uint32_t{bytes[2]} << 8 | bytes[3];
}

}  // namespace

absl::StatusOr<IdxBytes> ReadIdx(const std::string& path, int num_dimensions) {
  SP_ASSIGN_OR_RETURN(const std::vector<uint8_t> bytes, ReadWhole(path));
  Content content(bytes);
  uint8_t header[4 * 5];
  const size_t header_bytes = 4 * (1 + static_cast<size_t>(num_dimensions));
  const size_t found_bytes = content.Read(header, header_bytes);
  const uint32_t magic = kUnsignedByteMagic + static_cast<uint32_t>(num_dimensions);
  if (found_bytes >= 4 && BigEndian(header) != magic) {
    return Damaged(path, absl::StrCat("expected magic number 0x", absl::Hex(magic, absl::kZeroPad8),
                                      ", found 0x", absl::Hex(BigEndian(header), absl::kZeroPad8)));
  }
  if (found_bytes < header_bytes) {
    return Damaged(
        path, absl::StrCat("expected a header of ", header_bytes, " bytes, found ", found_bytes));
  }
  IdxBytes idx;
  int64_t count = 1;
  for (size_t i = 1; i <= static_cast<size_t>(num_dimensions); ++i) {
    idx.extents.push_back(BigEndian(header + 4 * i));
    if (__builtin_mul_overflow(count, idx.extents.back(), &count)) count = -1;
    if (count <= 0) break;
  }
  const std::string extents = absl::StrJoin(idx.extents, " x ");
  if (count <= 0) return Damaged(path, absl::StrCat("impossible extents ", extents));
  if (count > content.size_max()) {
    return Damaged(path, absl::StrCat("expected ", extents, " = ", count,
                                      " bytes after the header, found a file of ", bytes.size()));
  }
  idx.values.resize(static_cast<size_t>(count));
  const size_t read = content.Read(idx.values.data(), idx.values.size());
  if (read < idx.values.size()) {
    return Damaged(path, absl::StrCat("expected ", extents, " = ", count,
                                      " bytes after the header, found ", read));
  }
  if (!content.AtEnd()) {
    return Damaged(path, absl::StrCat("expected the end of the file after ", extents, " = ", count,
                                      " bytes, found more bytes or a wrong checksum"));
  }
  return idx;
}

}  // namespace smartpipe
