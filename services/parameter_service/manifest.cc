#include "services/parameter_service/manifest.h"

#include <algorithm>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "services/base/limits.h"
#include "services/base/status_macros.h"
#include "services/base/text.h"

namespace smartpipe {
namespace {

constexpr absl::string_view kMagic = "smartpipe-checkpoint 1\n";
constexpr absl::string_view kLastLine = "sha256 ";

absl::Status Bad(absl::string_view why) {
  return absl::DataLossError(absl::StrCat("it is no whole manifest: ", why));
}

// Takes one line "KEY VALUE\n" from the front of *text.
absl::StatusOr<absl::string_view> TakeValue(absl::string_view* text, absl::string_view key) {
  const size_t end = text->find('\n');
  absl::string_view line = text->substr(0, end);
  if (end == absl::string_view::npos || !absl::ConsumePrefix(&line, key) ||
      !absl::ConsumePrefix(&line, " ")) {
    return Bad(absl::StrCat("no line \"", key, "\""));
  }
  text->remove_prefix(end + 1);
  return line;
}

template <typename Int>
absl::Status TakeNumber(absl::string_view* text, absl::string_view key, Int min, Int max,
                        Int* number) {
  SP_ASSIGN_OR_RETURN(const absl::string_view value, TakeValue(text, key));
  if (absl::SimpleAtoi(value, number) && *number >= min && *number <= max) return absl::OkStatus();
  return Bad(absl::StrCat(key, " \"", value, "\""));
}

absl::Status TakeLayer(absl::string_view* text, Manifest* manifest) {
  const size_t end = text->find('\n');
  if (end == absl::string_view::npos) return Bad("its last line has no end");
  const std::vector<absl::string_view> words =
      absl::StrSplit(text->substr(0, end), absl::MaxSplits(' ', 3));
  text->remove_prefix(end + 1);
  int32_t layer = 0;
  LayerEntry entry;
  if (words.size() != 4 || !absl::SimpleAtoi(words[0], &layer) || layer < 0 ||
      layer >= manifest->num_layers || !absl::SimpleAtoi(words[2], &entry.size_bytes) ||
      entry.size_bytes < 0 || entry.size_bytes > limits::kTensorBytesMax ||
      !IsLayerName(words[3])) {
    return Bad("a line of a layer");
  }
  absl::StatusOr<ContentDigest> digest = ParseContentDigest(words[1]);
  if (!digest.ok()) return Bad(digest.status().message());
  entry.digest = *digest;
  entry.name = std::string(words[3]);
  if (!manifest->layers.emplace(LayerIndex(layer), std::move(entry)).second) {
    return Bad(absl::StrCat("layer ", layer, " twice"));
  }
  return absl::OkStatus();
}

}  // namespace

bool IsLayerName(absl::string_view name) {
  const bool has_control = std::any_of(name.begin(), name.end(), [](char c) {
    return static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
  });
  return !name.empty() && static_cast<int64_t>(name.size()) <= limits::kLayerNameBytesMax &&
         !has_control && IsUtf8(name);
}

int64_t Manifest::size_bytes() const {
  int64_t sum = 0;
  for (const auto& [layer, entry] : layers) sum += entry.size_bytes;
  return sum;
}

std::string EncodeManifest(const Manifest& manifest) {
  std::string text =
      absl::StrCat(kMagic, "run ", manifest.run, "\nstep ", manifest.step.value(), "\ngeneration ",
                   manifest.generation.value(), "\nlayers ", manifest.num_layers, "\n");
  for (const auto& [layer, entry] : manifest.layers) {
    absl::StrAppend(&text, layer.value(), " ", entry.digest.hex(), " ", entry.size_bytes, " ",
                    entry.name, "\n");
  }
  absl::StrAppend(&text, kLastLine, DigestOf(text).hex(), "\n");
  return text;
}

absl::StatusOr<Manifest> DecodeManifest(absl::string_view text) {
  const absl::string_view whole = text;
  const size_t last_line_size = kLastLine.size() + 64 + 1;
  if (text.size() < last_line_size) return Bad(absl::StrCat("it has ", text.size(), " bytes"));
  const absl::string_view last = text.substr(text.size() - last_line_size);
  text.remove_suffix(last_line_size);
  if (last != absl::StrCat(kLastLine, DigestOf(text).hex(), "\n")) {
    return Bad("its last line is not the digest of the lines above");
  }
  if (!absl::ConsumePrefix(&text, kMagic)) return Bad("its first line is of another version");
  Manifest manifest;
  SP_ASSIGN_OR_RETURN(const absl::string_view run, TakeValue(&text, "run"));
  manifest.run = std::string(run);
  int64_t step = 0, generation = 0;
  SP_RETURN_IF_ERROR(TakeNumber<int64_t>(&text, "step", 0, limits::kStepsMax, &step));
  SP_RETURN_IF_ERROR(TakeNumber<int64_t>(&text, "generation", 1, INT64_MAX, &generation));
  SP_RETURN_IF_ERROR(
      TakeNumber<int32_t>(&text, "layers", 1, limits::kLayersMax, &manifest.num_layers));
  manifest.step = Step(step);
  manifest.generation = Generation(generation);
  while (!text.empty()) SP_RETURN_IF_ERROR(TakeLayer(&text, &manifest));
  // Numbers with a sign, a space or zeros before them, and layers out of order.
  if (EncodeManifest(manifest) != whole) return Bad("it is not written as it should be");
  return manifest;
}

}  // namespace smartpipe
