// Weights files: https://huggingface.co/docs/safetensors, section "Format".
//   uint64 little-endian: number of header bytes; a JSON object; the tensors' bytes without gaps.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "services/base/status_macros.h"
#include "worker/model/layer_state.h"
#include "worker/model/tensor_bytes.h"

namespace smartpipe {
namespace {

// Names come from the file and may be of any length.
std::string Shown(const std::string& name) {
  constexpr size_t kShownBytesMax = 100;
  return name.size() <= kShownBytesMax ? name : name.substr(0, kShownBytesMax) + "...";
}

constexpr int64_t kHeaderBytesMax = 100'000'000;  // as the format's own reader
constexpr size_t kAlignment = 8;                  // of the first tensor's bytes in the file
constexpr size_t kDimensionsMax = 16;

/// A file descriptor that closes itself.
class File {
 public:
  File(const std::string& path, int flags) : path_(path), fd_(open(path.c_str(), flags, 0644)) {}
  ~File() {
    if (fd_ >= 0) close(fd_);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  bool is_open() const { return fd_ >= 0; }
  absl::Status Error(absl::string_view doing) const {
    const std::string message = absl::StrCat(path_, ": cannot ", doing, ": ", std::strerror(errno));
    switch (errno) {
      case ENOENT:
        return absl::NotFoundError(message);
      case EACCES:
        return absl::PermissionDeniedError(message);
      case ENOSPC:
        return absl::ResourceExhaustedError(message);
      default:
        return absl::DataLossError(message);
    }
  }

  /// Fills `out`; false at an early end or an error.
  bool Read(void* out, size_t count) {
    char* next = static_cast<char*>(out);
    while (count > 0) {
      const ssize_t got = read(fd_, next, count);
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) return false;
      next += got;
      count -= static_cast<size_t>(got);
    }
    return true;
  }

  absl::Status Write(absl::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t put = write(fd_, bytes.data(), bytes.size());
      if (put < 0 && errno == EINTR) continue;
      if (put < 0) return Error("write");
      bytes.remove_prefix(static_cast<size_t>(put));
    }
    return absl::OkStatus();
  }

  absl::Status Sync() { return fsync(fd_) == 0 ? absl::OkStatus() : Error("sync"); }

 private:
  const std::string path_;
  const int fd_;
};

struct Entry {
  std::string name, dtype;
  std::vector<int64_t> shape, offsets;
  bool has_dtype = false, has_shape = false, has_offsets = false;
};

/// Takes a header apart while it is parsed, and stops at the first thing that has no place in one;
/// so a hostile header costs no more memory than a good one of its length.
class HeaderParser final : public nlohmann::json_sax<nlohmann::json> {
 public:
  std::vector<Entry>& entries() { return entries_; }
  const std::string& problem() const { return problem_; }

  bool start_object(size_t /*size*/) override { return ++depth_ <= 2 || Fail("a nested object"); }
  bool end_object() override {
    --depth_;
    if (depth_ == 0 || in_metadata_) return true;
    const Entry& entry = entries_.back();
    return (entry.has_dtype && entry.has_shape && entry.has_offsets) ||
           Fail("a tensor without dtype, shape or data_offsets");
  }
  bool key(string_t& name) override {
    if (depth_ == 1) {
      in_metadata_ = name == "__metadata__";
      if (!in_metadata_)
        entries_.push_back({.name = name, .dtype = {}, .shape = {}, .offsets = {}});
      return true;
    }
    key_ = name;
    if (in_metadata_) return true;
    Entry& entry = entries_.back();
    bool* const seen = name == "dtype"          ? &entry.has_dtype
                       : name == "shape"        ? &entry.has_shape
                       : name == "data_offsets" ? &entry.has_offsets
                                                : nullptr;
    if (seen == nullptr || *seen) return Fail("a tensor with an unknown or repeated key");
    *seen = true;
    return true;
  }
  bool string(string_t& value) override {
    if (depth_ != 2 || in_array_) return Fail("a string in the wrong place");
    if (in_metadata_) return true;
    if (key_ != "dtype") return Fail("a string in the wrong place");
    entries_.back().dtype = value;
    return true;
  }
  bool start_array(size_t /*size*/) override {
    if (depth_ != 2 || in_metadata_ || in_array_ || (key_ != "shape" && key_ != "data_offsets")) {
      return Fail("a list in the wrong place");
    }
    return in_array_ = true;
  }
  bool end_array() override {
    in_array_ = false;
    return true;
  }
  bool number_unsigned(number_unsigned_t value) override {
    if (!in_array_) return Fail("a number in the wrong place");
    std::vector<int64_t>& list = key_ == "shape" ? entries_.back().shape : entries_.back().offsets;
    if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()) ||
        list.size() >= kDimensionsMax) {
      return Fail("a number that is too large, or too many of them");
    }
    list.push_back(static_cast<int64_t>(value));
    return true;
  }
  bool number_integer(number_integer_t /*value*/) override { return Fail("a negative number"); }
  bool number_float(number_float_t /*value*/, const string_t& /*text*/) override {
    return Fail("a fraction");
  }
  bool null() override { return Fail("null"); }
  bool boolean(bool /*value*/) override { return Fail("true or false"); }
  bool binary(binary_t& /*value*/) override { return Fail("binary data"); }
  bool parse_error(size_t position, const std::string& /*token*/,
                   const nlohmann::detail::exception& /*error*/) override {
    return Fail(absl::StrCat("no JSON at byte ", position));
  }

 private:
  bool Fail(absl::string_view what) {
    if (problem_.empty()) {
      problem_ = absl::StrCat("the header has ", what);
      if (!entries_.empty())
        absl::StrAppend(&problem_, ", at tensor \"", entries_.back().name, "\"");
    }
    return false;
  }

  std::vector<Entry> entries_;
  std::string problem_, key_;
  int depth_ = 0;
  bool in_metadata_ = false, in_array_ = false;
};

absl::Status Damaged(const std::string& path, absl::string_view what) {
  return absl::DataLossError(absl::StrCat(
      path, ": ", what, "; the file is damaged or no safetensors file: get or write it again"));
}

/// Checks one entry against the bytes that lie before it and the file's end.
absl::Status CheckEntry(const std::string& path, const Entry& entry, int64_t expected_begin,
                        int64_t data_bytes) {
  const auto dtype = DtypeFromName(entry.dtype);
  if (!dtype) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": tensor \"", Shown(entry.name),
                                                   "\" has dtype \"", entry.dtype,
                                                   "\", which no model here uses"));
  }
  const auto size = ByteSize(*dtype, entry.shape);
  if (!size || entry.offsets.size() != 2 || entry.offsets[0] != expected_begin ||
      entry.offsets[1] > data_bytes || entry.offsets[1] - entry.offsets[0] != *size) {
    return Damaged(path,
                   absl::StrCat("tensor \"", Shown(entry.name),
                                "\" does not lie where its shape and the tensors before it say"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<NamedTensor>> ReadSafetensors(const std::string& path) {
  File file(path, O_RDONLY | O_CLOEXEC);
  if (!file.is_open()) return file.Error("open");
  std::error_code error;
  const auto file_bytes = static_cast<int64_t>(std::filesystem::file_size(path, error));
  uint64_t header_bytes = 0;
  if (error || !file.Read(&header_bytes, sizeof(header_bytes))) {
    return Damaged(path, "expected at least 8 bytes");
  }
  const int64_t rest_bytes = file_bytes - static_cast<int64_t>(sizeof(header_bytes));
  if (header_bytes > static_cast<uint64_t>(std::min(rest_bytes, kHeaderBytesMax))) {
    return Damaged(path,
                   absl::StrCat("expected a header of ", header_bytes, " bytes, found ", rest_bytes,
                                " bytes (a header has at most ", kHeaderBytesMax, ")"));
  }
  const int64_t data_bytes = rest_bytes - static_cast<int64_t>(header_bytes);
  std::string header(header_bytes, '\0');
  if (!file.Read(header.data(), header.size())) return Damaged(path, "the header cannot be read");
  HeaderParser parser;
  if (header.empty() || header[0] != '{' || !nlohmann::json::sax_parse(header, &parser)) {
    return Damaged(path,
                   parser.problem().empty() ? "the header is no JSON object" : parser.problem());
  }
  std::vector<Entry>& entries = parser.entries();
  std::stable_sort(entries.begin(), entries.end(),
                   [](const Entry& a, const Entry& b) { return a.offsets < b.offsets; });
  int64_t end = 0;
  std::map<absl::string_view, int> names;
  for (const Entry& entry : entries) {
    SP_RETURN_IF_ERROR(CheckEntry(path, entry, end, data_bytes));
    end = entry.offsets[1];
    if (++names[entry.name] > 1) {
      return Damaged(path, absl::StrCat("tensor \"", Shown(entry.name), "\" is there twice"));
    }
  }
  if (end != data_bytes) {
    return Damaged(path, absl::StrCat("expected ", end, " bytes of tensors, found ", data_bytes));
  }
  std::vector<NamedTensor> tensors;
  for (const Entry& entry : entries) {
    tensors.push_back({entry.name, EmptyTensor(*DtypeFromName(entry.dtype), entry.shape)});
    at::Tensor& tensor = tensors.back().tensor;
    if (tensor.nbytes() > 0 && !file.Read(tensor.mutable_data_ptr(), tensor.nbytes())) {
      return Damaged(
          path, absl::StrCat("the bytes of tensor \"", Shown(entry.name), "\" cannot be read"));
    }
  }
  return tensors;
}

absl::Status WriteSafetensors(const std::string& path, const std::vector<NamedTensor>& tensors) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  std::vector<at::Tensor> values;
  size_t end = 0;
  for (const NamedTensor& entry : tensors) {
    values.push_back(RowMajor(entry.tensor));
    const size_t begin = end;
    end += values.back().nbytes();
    header[entry.name] = {{"dtype", std::string(DtypeName(values.back().scalar_type()))},
                          {"shape", values.back().sizes().vec()},
                          {"data_offsets", {begin, end}}};
  }
  if (header.size() != tensors.size()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": two tensors have the same name"));
  }
  std::string text = header.dump();
  text.resize((text.size() + kAlignment - 1) / kAlignment * kAlignment, ' ');
  const uint64_t header_bytes = text.size();
  std::string length(sizeof(header_bytes), '\0');
  std::memcpy(length.data(), &header_bytes, sizeof(header_bytes));

  const std::string temporary = absl::StrCat(path, ".tmp", getpid());
  const absl::Status written = [&]() -> absl::Status {
    File file(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC);
    if (!file.is_open()) return file.Error("create");
    SP_RETURN_IF_ERROR(file.Write(length));
    SP_RETURN_IF_ERROR(file.Write(text));
    for (const at::Tensor& tensor : values) SP_RETURN_IF_ERROR(file.Write(BytesOf(tensor)));
    SP_RETURN_IF_ERROR(file.Sync());
    if (std::rename(temporary.c_str(), path.c_str()) != 0) return file.Error("rename");
    return absl::OkStatus();
  }();
  if (!written.ok()) {
    unlink(temporary.c_str());
    return written;
  }
  const std::string folder = std::filesystem::path(path).parent_path().string();
  File directory(folder.empty() ? "." : folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  return directory.is_open() ? directory.Sync() : directory.Error("open");
}

}  // namespace smartpipe
