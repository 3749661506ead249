#include "worker/control/checkpoint_uploader.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "services/base/status_macros.h"
#include "services/obs/log.h"

namespace smartpipe {

CheckpointUploader::CheckpointUploader(const Options& options)
    : options_(options),
      client_({.channel = options.channel,
               .attempts_max = options.attempts_max,
               .sleep =
                   [this](absl::Duration wait) {
                     absl::MutexLock lock(&mutex_);
                     mutex_.AwaitWithTimeout(absl::Condition(&cancelled_), wait);
                   }}),
      thread_([this] { Work(); }) {}

CheckpointUploader::~CheckpointUploader() {
  Cancel();
  thread_.join();
}

std::set<LayerIndex> CheckpointUploader::WaitReady() {
  absl::MutexLock lock(&mutex_);
  mutex_.Await(absl::Condition(this, &CheckpointUploader::ReadyOrCancelled));
  std::set<LayerIndex> stored;
  for (const auto& [layer, content] : frozen_) stored.insert(layer);
  return stored;
}

void CheckpointUploader::Put(WorkerCheckpoint checkpoint) {
  absl::MutexLock lock(&mutex_);
  if (!cancelled_) waiting_ = std::move(checkpoint);
}

CheckpointBytes CheckpointUploader::Finish(absl::Duration timeout) {
  absl::MutexLock lock(&mutex_);
  if (!mutex_.AwaitWithTimeout(absl::Condition(this, &CheckpointUploader::ReadyOrCancelled),
                               timeout)) {
    LogWarning("the last checkpoint is given up: it was not stored within ",
               absl::FormatDuration(timeout));
  }
  return bytes_;
}

void CheckpointUploader::Cancel() {
  {
    absl::MutexLock lock(&mutex_);
    cancelled_ = true;
    waiting_.reset();
  }
  client_.Cancel();
}

void CheckpointUploader::Work() {
  absl::MutexLock lock(&mutex_);
  while (true) {
    mutex_.Await(absl::Condition(this, &CheckpointUploader::HasWork));
    if (cancelled_) return;
    std::optional<WorkerCheckpoint> checkpoint = std::exchange(waiting_, std::nullopt);
    storing_ = true;
    mutex_.Unlock();
    Store(*checkpoint);
    checkpoint.reset();  // before the next one is packed
    mutex_.Lock();
    storing_ = false;
  }
}

void CheckpointUploader::Store(const WorkerCheckpoint& checkpoint) {
  const std::string what =
      absl::StrCat("the checkpoint of step ", checkpoint.step.value(), " is not complete: ");
  if (const absl::Status reported = options_.wait_reported(); !reported.ok()) {
    LogInfo(what, reported.message());
    return;
  }
  bool complete = false;
  for (const CheckpointLayer& layer : checkpoint.layers) {
    const absl::StatusOr<PutOutcome> put = StoreLayer(checkpoint.step, layer);
    if (!put.ok()) {
      if (!absl::IsCancelled(put.status())) LogWarning(what, put.status().message());
      return;
    }
    complete |= put->checkpoint_complete;
  }
  if (!complete) return;
  LogInfo("the checkpoint of step ", checkpoint.step.value(), " is complete");
  const absl::Status deleted = DeleteOlder(checkpoint.step);
  if (deleted.ok() || absl::IsCancelled(deleted)) return;
  LogWarning("checkpoints older than that of step ", checkpoint.step.value(),
             " are not all deleted: ", deleted.message());
}

absl::StatusOr<PutOutcome> CheckpointUploader::StoreLayer(Step step, const CheckpointLayer& layer) {
  const LayerPlace place{.run = options_.run,
                         .generation = options_.generation,
                         .step = step,
                         .layer = layer.layer,
                         .num_layers = options_.num_layers,
                         .name = layer.name};
  std::optional<Content> content;
  if (layer.owner != nullptr) {
    content = {DigestOf(layer.bytes), static_cast<int64_t>(layer.bytes.size())};
  } else {
    absl::MutexLock lock(&mutex_);
    content = frozen_.at(layer.layer);
  }
  const absl::StatusOr<PutOutcome> put =
      layer.owner != nullptr ? client_.PutLayer(place, layer.bytes, content->digest)
                             : client_.PutStoredLayer(place, content->digest, content->size_bytes);
  absl::MutexLock lock(&mutex_);
  frozen_.erase(layer.layer);
  SP_RETURN_IF_ERROR(put.status());
  if (layer.frozen) frozen_[layer.layer] = *content;
  (put->already_there ? bytes_.shared : bytes_.written) += content->size_bytes;
  return put;
}

absl::Status CheckpointUploader::DeleteOlder(Step newest) {
  SP_ASSIGN_OR_RETURN(const std::vector<v1::Checkpoint> checkpoints,
                      client_.ListCheckpoints(options_.run));
  int64_t num_kept = 0;
  int64_t num_deleted = 0;
  for (auto checkpoint = checkpoints.rbegin(); checkpoint != checkpoints.rend(); ++checkpoint) {
    const Step step(checkpoint->step());
    if (step > newest || checkpoint->pinned()) continue;
    const bool complete = checkpoint->state() == v1::CHECKPOINT_STATE_COMPLETE;
    if (complete && ++num_kept <= options_.keep_last) continue;
    if (!complete && checkpoint->state() != v1::CHECKPOINT_STATE_INCOMPLETE) continue;
    const absl::Status deleted = client_.DeleteCheckpoint(options_.run, step, options_.generation);
    if (!absl::IsNotFound(deleted)) SP_RETURN_IF_ERROR(deleted);  // another worker was faster
    ++num_deleted;
  }
  if (num_deleted == 0) return absl::OkStatus();
  SP_ASSIGN_OR_RETURN(const int64_t freed_bytes, client_.CollectGarbage());
  LogInfo("deleted ", num_deleted, " older checkpoints, ", freed_bytes, " bytes");
  return absl::OkStatus();
}

}  // namespace smartpipe
