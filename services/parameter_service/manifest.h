// The small text files of the layer store: one per complete checkpoint, one per layer of an
// incomplete one.
//
//   smartpipe-checkpoint 1
//   run block-net
//   step 1000
//   generation 3
//   layers 2
//   0 <sha256> 7168 stem
//   1 <sha256> 36992 block1
//   sha256 <of everything above>
//
// A layer of an incomplete checkpoint is the same file with its own line only.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "services/base/content_digest.h"
#include "services/base/ids.h"

namespace smartpipe {

/// Whether `name` may be a layer's: 1..255 bytes of UTF-8 without control characters.
bool IsLayerName(absl::string_view name);

/// One layer's content.
struct LayerEntry {
  std::string name;  // IsLayerName
  ContentDigest digest;
  int64_t size_bytes = 0;
  friend bool operator==(const LayerEntry&, const LayerEntry&) = default;
};

/// The layers of one step of one run: all of them when complete.
struct Manifest {
  std::string run;
  Step step;
  Generation generation;
  int32_t num_layers = 0;  // wanted
  std::map<LayerIndex, LayerEntry> layers;

  bool complete() const { return static_cast<int32_t>(layers.size()) == num_layers; }
  int64_t size_bytes() const;
};

/// Threads: pure.  Cost: linear.
std::string EncodeManifest(const Manifest& manifest);
/// Errors: DATA_LOSS, saying what is wrong, for anything that EncodeManifest does not write.
absl::StatusOr<Manifest> DecodeManifest(absl::string_view text);

/// More than the largest manifest has.
inline constexpr int64_t kManifestBytesMax = 4 << 20;

}  // namespace smartpipe
