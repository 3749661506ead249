// What callers of GetRun ask of its answer.
#pragma once

#include "smartpipe/v1/freeze_service.pb.h"

namespace smartpipe {

/// The run has ended, however it did.
inline bool IsOver(const v1::Run& run) {
  return run.state() == v1::RUN_STATE_FINISHED || run.state() == v1::RUN_STATE_FAILED ||
         run.state() == v1::RUN_STATE_STOPPED;
}

}  // namespace smartpipe
