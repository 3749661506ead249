// One content on its way in; inside of the layer store.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "services/base/content_digest.h"
#include "services/parameter_service/file_operations.h"
#include "services/parameter_service/manifest.h"

namespace smartpipe {

/// Bytes [0, bytes_held) of a content are in a temporary file; all puts of the content add to it.
/// Its mutex is held while bytes are written, synced and published.
struct LayerUpload {
  LayerUpload(LayerEntry announced, std::string temporary, std::unique_ptr<WritableFile> opened)
      : entry(std::move(announced)), path(std::move(temporary)), file(std::move(opened)) {}

  const LayerEntry entry;  // the name is the first writer's, and of no meaning
  const std::string path;

  int num_puts = 0;  // guarded by the store's mutex

  absl::Mutex mutex;
  std::unique_ptr<WritableFile> file ABSL_GUARDED_BY(mutex);
  ContentHasher hasher ABSL_GUARDED_BY(mutex);
  int64_t bytes_held ABSL_GUARDED_BY(mutex) = 0;
  int64_t last_writer ABSL_GUARDED_BY(mutex) = 0;  // id of a put; 0 = none yet
  bool several_writers ABSL_GUARDED_BY(mutex) = false;
  bool published ABSL_GUARDED_BY(mutex) = false;
  absl::Status failure ABSL_GUARDED_BY(mutex);  // set once, for good
};

}  // namespace smartpipe
