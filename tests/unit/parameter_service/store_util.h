// Short ways to put and read layers in tests of the layer store.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "services/parameter_service/layer_store.h"

namespace smartpipe::testutil {

inline LayerVersion MakeVersion(int64_t step, int32_t layer, absl::string_view bytes,
                                int32_t num_layers = 3, int64_t generation = 1) {
  return {"run",
          Generation(generation),
          Step(step),
          LayerIndex(layer),
          num_layers,
          {absl::StrCat("block", layer), DigestOf(bytes), static_cast<int64_t>(bytes.size())}};
}

/// The whole put, bytes only if they are needed, in chunks of `chunk_bytes`.
inline absl::StatusOr<PutState> Put(LayerStore& store, const LayerVersion& version,
                                    absl::string_view bytes, size_t chunk_bytes = 1 << 20) {
  absl::StatusOr<std::unique_ptr<LayerPut>> put = store.BeginPut(version);
  if (!put.ok()) return put.status();
  while (!(*put)->state().complete) {
    const auto offset = static_cast<size_t>((*put)->state().bytes_held);
    const absl::Status status =
        (*put)->Append(static_cast<int64_t>(offset), bytes.substr(offset, chunk_bytes));
    if (!status.ok()) return status;
  }
  return (*put)->state();
}

inline absl::StatusOr<std::string> Get(LayerStore& store, int64_t step, int32_t layer) {
  absl::StatusOr<std::unique_ptr<LayerReader>> reader =
      store.OpenLayer("run", Step(step), LayerIndex(layer));
  if (!reader.ok()) return reader.status();
  std::string bytes;
  char buffer[1000];
  while (true) {
    const absl::StatusOr<size_t> count = (*reader)->Read(buffer, sizeof(buffer));
    if (!count.ok()) return count.status();
    if (*count == 0) return bytes;
    bytes.append(buffer, *count);
  }
}

}  // namespace smartpipe::testutil
