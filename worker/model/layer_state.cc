#include "worker/model/layer_state.h"

#include <cstddef>
#include <cstring>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>

#include "ATen/core/grad_mode.h"
#include "ATen/ops/isfinite.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "worker/model/tensor_bytes.h"

namespace smartpipe {
namespace {

// A pack: magic, uint64 number of payload bytes, their sha256, payload. The payload is one entry
// per tensor, encoded as WeightsDigest says.
constexpr absl::string_view kPackMagic = "SPTNSR01";
constexpr size_t kSha256Bytes = sizeof(ContentDigest::bytes);
constexpr size_t kPackHeaderBytes = 8 + 8 + kSha256Bytes;
constexpr uint64_t kDimensionsMax = 16;

std::string Integer(uint64_t value) {
  std::string bytes(sizeof(value), '\0');
  std::memcpy(bytes.data(), &value, sizeof(value));
  return bytes;
}

/// Everything of an entry but the tensor's bytes.
std::string EntryHeader(absl::string_view name, const at::Tensor& tensor) {
  const absl::string_view dtype = DtypeName(tensor.scalar_type());
  std::string header = absl::StrCat(Integer(name.size()), name, Integer(dtype.size()), dtype,
                                    Integer(static_cast<uint64_t>(tensor.dim())));
  for (const int64_t extent : tensor.sizes()) header += Integer(static_cast<uint64_t>(extent));
  return header;
}

std::string Sha256(absl::string_view bytes) {
  const ContentDigest digest = DigestOf(bytes);
  return std::string(digest.bytes.begin(), digest.bytes.end());
}

/// Takes pieces from the front of bytes that nobody vouches for.
class Reader {
 public:
  explicit Reader(absl::string_view bytes) : rest_(bytes) {}
  bool empty() const { return rest_.empty(); }

  std::optional<absl::string_view> Bytes(uint64_t count) {
    if (count > rest_.size()) return std::nullopt;
    const absl::string_view taken = rest_.substr(0, count);
    rest_.remove_prefix(count);
    return taken;
  }

  std::optional<uint64_t> Integer() {
    const auto bytes = Bytes(sizeof(uint64_t));
    if (!bytes) return std::nullopt;
    uint64_t value;
    std::memcpy(&value, bytes->data(), sizeof(value));
    return value;
  }

  std::optional<absl::string_view> SizedBytes() {
    const auto count = Integer();
    return count ? Bytes(*count) : std::nullopt;
  }

 private:
  absl::string_view rest_;
};

std::optional<NamedTensor> ReadEntry(Reader& reader) {
  const auto name = reader.SizedBytes();
  const auto dtype_name = reader.SizedBytes();
  const auto num_dimensions = reader.Integer();
  if (!name || !dtype_name || !num_dimensions || *num_dimensions > kDimensionsMax) {
    return std::nullopt;
  }
  std::vector<int64_t> extents;
  for (uint64_t i = 0; i < *num_dimensions; ++i) {
    const auto extent = reader.Integer();
    if (!extent) return std::nullopt;
    extents.push_back(static_cast<int64_t>(*extent));
  }
  const auto dtype = DtypeFromName(*dtype_name);
  const auto size = dtype ? ByteSize(*dtype, extents) : std::nullopt;
  const auto bytes = size ? reader.Bytes(static_cast<uint64_t>(*size)) : std::nullopt;
  if (!bytes) return std::nullopt;
  NamedTensor entry{std::string(*name), EmptyTensor(*dtype, extents)};
  if (!bytes->empty()) std::memcpy(entry.tensor.mutable_data_ptr(), bytes->data(), bytes->size());
  return entry;
}

}  // namespace

void WeightsDigest::Add(const NamedTensor& tensor) {
  const at::Tensor values = RowMajor(tensor.tensor);
  const std::string header = EntryHeader(tensor.name, values);
  for (const absl::string_view bytes : {absl::string_view(header), BytesOf(values)}) {
    hasher_.Add(bytes);
  }
}

void WeightsDigest::Add(const Layer& layer) {
  for (const NamedTensor& parameter : layer.parameters()) Add(parameter);
  for (const NamedTensor& buffer : layer.buffers()) Add(buffer);
}

std::string WeightsDigest::Finish() { return hasher_.Finish().hex(); }

at::Tensor PackTensors(const std::vector<NamedTensor>& tensors) {
  std::vector<at::Tensor> values;
  std::vector<std::string> headers;
  size_t payload_bytes = 0;
  for (const NamedTensor& entry : tensors) {
    values.push_back(RowMajor(entry.tensor));
    headers.push_back(EntryHeader(entry.name, values.back()));
    payload_bytes += headers.back().size() + values.back().nbytes();
  }
  at::Tensor packed =
      EmptyTensor(at::kByte, {static_cast<int64_t>(kPackHeaderBytes + payload_bytes)});
  char* const begin = static_cast<char*>(packed.mutable_data_ptr());
  char* out = begin + kPackHeaderBytes;
  const auto append = [&out](absl::string_view bytes) {
    if (!bytes.empty()) std::memcpy(out, bytes.data(), bytes.size());
    out += bytes.size();
  };
  for (size_t i = 0; i < tensors.size(); ++i) {
    append(headers[i]);
    append(BytesOf(values[i]));
  }
  out = begin;
  append(kPackMagic);
  append(Integer(payload_bytes));
  append(Sha256({begin + kPackHeaderBytes, payload_bytes}));
  return packed;
}

absl::StatusOr<std::vector<NamedTensor>> UnpackTensors(const at::Tensor& packed) {
  if (packed.scalar_type() != at::kByte || packed.dim() != 1) {
    return absl::InvalidArgumentError("packed tensors are a tensor of bytes with one dimension");
  }
  const at::Tensor values = RowMajor(packed);
  return UnpackTensors(BytesOf(values));
}

absl::StatusOr<std::vector<NamedTensor>> UnpackTensors(absl::string_view packed) {
  Reader reader(packed);
  const auto magic = reader.Bytes(kPackMagic.size());
  const auto payload_bytes = reader.Integer();
  const auto digest = reader.Bytes(kSha256Bytes);
  if (!digest || *magic != kPackMagic || *payload_bytes != packed.size() - kPackHeaderBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("packed tensors are torn: ", packed.size(), " bytes, expected ",
                     payload_bytes ? kPackHeaderBytes + *payload_bytes : kPackHeaderBytes,
                     " that start with ", kPackMagic));
  }
  if (Sha256(packed.substr(kPackHeaderBytes)) != *digest) {
    return absl::DataLossError("packed tensors do not fit their sha256: bytes changed on the way");
  }
  std::vector<NamedTensor> tensors;
  while (!reader.empty()) {
    std::optional<NamedTensor> entry = ReadEntry(reader);
    if (!entry) {
      return absl::InvalidArgumentError(
          absl::StrCat("packed tensors are torn: entry ", tensors.size(), " is not readable"));
    }
    tensors.push_back(*std::move(entry));
  }
  return tensors;
}

absl::Status CheckFinite(const NamedTensor& tensor) {
  if (at::isfinite(tensor.tensor).all().item<bool>()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("\"", tensor.name,
                   "\" holds NaN or infinity: take weights of a run whose loss stayed finite"));
}

absl::Status LoadIntoLayer(const std::vector<NamedTensor>& tensors, bool allow_partial,
                           Layer& layer, int64_t& found) {
  at::NoGradGuard no_grad;
  found = 0;
  std::unordered_map<std::string, const at::Tensor*> by_name;
  for (const NamedTensor& entry : tensors) by_name.emplace(entry.name, &entry.tensor);
  std::vector<std::pair<at::Tensor, const at::Tensor*>> copies;
  for (const std::vector<NamedTensor>* targets : {&layer.parameters(), &layer.buffers()}) {
    for (const NamedTensor& target : *targets) {
      const auto source = by_name.find(target.name);
      if (source == by_name.end()) {
        if (allow_partial) continue;
        return absl::NotFoundError(absl::StrCat(
            "the weights have no tensor \"", target.name, "\" for layer \"", layer.name(),
            "\": take weights of this model, or set model.allow_partial = true to start the "
            "missing ones fresh"));
      }
      const at::Tensor& tensor = *source->second;
      if (tensor.sizes() != target.tensor.sizes() ||
          tensor.scalar_type() != target.tensor.scalar_type()) {
        return absl::InvalidArgumentError(absl::StrCat(
            "the weights have \"", target.name, "\" as ", DtypeName(tensor.scalar_type()), " [",
            absl::StrJoin(tensor.sizes(), ", "), "], but layer \"", layer.name(), "\" needs ",
            DtypeName(target.tensor.scalar_type()), " [",
            absl::StrJoin(target.tensor.sizes(), ", "),
            "]: take weights of this model and dataset"));
      }
      copies.emplace_back(target.tensor, &tensor);
    }
  }
  for (auto& [target, source] : copies) target.copy_(*source);
  found = static_cast<int64_t>(copies.size());
  return absl::OkStatus();
}

}  // namespace smartpipe
