// Where the compute thread is, for those who watch it.
#pragma once

#include <cstdint>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "pipeline/instruction.h"
#include "services/base/ids.h"

namespace smartpipe {

/// Threads: Set from the compute thread, the others from any.  Cost: an uncontended lock.
class Position {
 public:
  /// In an instruction of the step; `peer`: the rank that it may wait for, -1 = nobody.
  void Set(Step step, const Instruction& instruction, int peer) ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    ++num_changes_;
    step_ = step;
    instruction_ = instruction;
    what_ = {};
    peer_ = peer;
  }
  /// In something else; `what` has static storage: "the evaluation".
  void Set(Step step, absl::string_view what) ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    ++num_changes_;
    step_ = step;
    what_ = what;
    peer_ = -1;
  }
  /// Stays the same while the thread stands still.
  int64_t num_changes() const ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    return num_changes_;
  }
  /// The rank that it may wait for; -1 = not known.
  int peer() const ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    return peer_;
  }
  /// "step 12, instruction 1F3".
  std::string Text() const ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    return absl::StrCat("step ", step_.value(), ", ",
                        what_.empty() ? absl::StrCat("instruction ", Format(instruction_)) : what_);
  }

 private:
  mutable absl::Mutex mutex_;
  int64_t num_changes_ ABSL_GUARDED_BY(mutex_) = 0;
  Step step_ ABSL_GUARDED_BY(mutex_);
  Instruction instruction_ ABSL_GUARDED_BY(mutex_);
  absl::string_view what_ ABSL_GUARDED_BY(mutex_) = "the start";
  int peer_ ABSL_GUARDED_BY(mutex_) = -1;
};

}  // namespace smartpipe
