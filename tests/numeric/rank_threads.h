// Runs the real training loop with ranks as threads of this process and a scripted control plane.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/statusor.h"
#include "pipeline/plan.h"
#include "services/config/run_config.h"
#include "worker/comm/transport.h"
#include "worker/control/messages.h"
#include "worker/data/dataset.h"
#include "worker/model/model.h"

namespace smartpipe {

/// What is in force from `step` (a multiple of the interval) on.
struct PlanChange {
  int64_t step = 0;
  int64_t frontier = 0;
  std::vector<int64_t> cuts;
};

struct RankThreadsOptions {
  RunConfig config;
  const ModelSpec* model = nullptr;
  const Dataset* dataset = nullptr;
  int64_t num_steps = 0;
  int64_t interval_steps = 1;
  std::vector<PlanChange> plans;  // the first one has step 0
  bool gloo = false;              // else loopback
  LoopbackHub* hub = nullptr;     // null = an own one
};

struct RankThreadsResult {
  std::string weights_sha256;
  std::vector<double> losses;                            // [step]
  std::vector<std::vector<IntervalReportInfo>> reports;  // [rank][interval]
  std::vector<EvaluationInfo> evaluations;
};

/// TestDevice() as the calling thread's own; stops the program if it cannot be used. On a GPU all
/// threads share the first one, as they would share a core.
at::Device UseTestDevice();

/// The plan that `change` asks for, stages dealt out to workers "w<rank>".
Plan MakePlan(const RankThreadsOptions& options, const PlanChange& change, int64_t epoch);

absl::StatusOr<RankThreadsResult> TrainOnThreads(const RankThreadsOptions& options);

}  // namespace smartpipe
