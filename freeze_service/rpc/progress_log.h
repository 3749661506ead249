// What people see of a run in progress: the newest step, evaluations, and metrics.jsonl.
#pragma once

#include <cstdint>
#include <deque>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "services/base/ids.h"
#include "smartpipe/v1/freeze_service.pb.h"

namespace smartpipe {

/// Keeps the run's progress and appends one JSON line per step and per evaluation:
///   {"epoch": 0, "frontier": 2, "loss": 0.41, "samples_per_s": 1893.1, "step": 120, "step_s":
///   0.0338}
///   {"evaluation": {"accuracy": 0.87, "loss": 0.35, "seconds": 1.2, "step": 468}}
/// A loss that is not finite is written as null. Progress decides nothing, so a file that cannot be
/// written is told (problem()) and does not end the run.  Threads: the caller locks.
class ProgressLog {
 public:
  struct Length {
    int64_t num_steps = 0;
    int64_t steps_per_epoch = 1;
    int64_t interval_steps = 1;
  };

  /// `path` "" = no file. Goes on where the file's last whole line is.  Errors: UNAVAILABLE when it
  /// cannot be opened.
  static absl::StatusOr<std::unique_ptr<ProgressLog>> Create(const std::string& path,
                                                             int64_t batch_size);

  /// Steps and evaluations heard before are skipped, so a request may be repeated.
  /// `frontier_at` tells the frontier in force at a step.
  /// Errors: INVALID_ARGUMENT (order, range, negative time), RESOURCE_EXHAUSTED (too many
  /// evaluations); then nothing is taken over.
  absl::Status Add(const v1::ReportProgressRequest& request, const Length& length,
                   const std::function<LayerIndex(Step)>& frontier_at);

  int64_t steps_done() const { return steps_done_; }
  /// Steps trained at the newest evaluation; -1 = there is none.
  int64_t last_evaluation_step() const {
    return evaluations_.empty() ? -1 : evaluations_.back().step();
  }
  /// Sets step, loss, samples_per_second, evaluations, train_loss and step_seconds.
  void Fill(v1::Run& run, const Length& length) const;
  /// Why metrics.jsonl misses lines; empty = it does not.
  const std::string& problem() const { return problem_; }

 private:
  ProgressLog(std::string path, int64_t batch_size)
      : path_(std::move(path)), batch_size_(batch_size) {}
  absl::Status CheckRequest(const v1::ReportProgressRequest& request, const Length& length) const;
  bool IsNew(const v1::Evaluation& evaluation) const;
  /// Takes over what the file tells, and cuts off a last part of a line.
  absl::Status ReadBack();
  void Write(const std::string& lines);
  /// Takes over one step.
  void AddStep(int64_t step, int64_t epoch, double loss, double step_s);

  struct StepLoss {
    int64_t step = 0, epoch = 0;
    double loss = 0;
  };

  const std::string path_;
  const int64_t batch_size_;
  std::ofstream file_;
  std::string problem_;
  int64_t steps_done_ = 0;
  std::deque<StepLoss> losses_;  // of the newest epoch and the one before
  double step_seconds_ = 0;
  std::deque<double> step_s_;  // of the newest steps
  std::vector<v1::Evaluation> evaluations_;
};

}  // namespace smartpipe
