// What a finished run came to: plain numbers, the summary file, the final tables.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace smartpipe {

/// A plan change, or one that was considered and refused.
struct DecisionRecord {
  int64_t step = 0;
  int64_t plan_epoch = 0;
  int64_t frontier = 0;
  std::vector<int64_t> cuts;
  std::string reason;
};

struct RunResult {
  std::string policy;
  std::string run_dir;
  int64_t steps = 0;
  double epochs = 0;
  int64_t num_layers = 0;
  int64_t num_stages = 0;
  int64_t frozen_layers = 0;
  int64_t rebalances = 0;
  int64_t layers_moved = 0;
  std::optional<double> test_accuracy;  // 0..1; none when nothing was evaluated
  double train_loss = 0;
  // First step's start to last step's end, without evaluation; over several generations the sum of
  // all steps' times.
  double wall_seconds = 0;
  double total_seconds = 0;  // of the command
  double samples_per_second = 0;
  double speedup_limit = 1;         // largest speed-up by the work that this run's freezing saves
  double verdict_wait_seconds = 0;  // largest sum over the workers; the same for the next three
  double switch_seconds = 0;
  double report_seconds = 0;
  double checkpoint_seconds = 0;
  int64_t checkpoint_bytes_written = 0;      // over all checkpoints and workers
  int64_t checkpoint_bytes_shared = 0;       // of layers that were stored already
  std::optional<int64_t> resumed_from_step;  // none = the run was not resumed
  int64_t recoveries = 0;                    // times that it went back to a checkpoint by itself
  int64_t generations = 1;
  std::string weights_sha256;
  std::vector<DecisionRecord> decisions;  // by step
};

/// Decisions that raised the frontier.
int64_t NumFreezes(const RunResult& result);

/// The summary file's text: one JSON object.
std::string SummaryJson(const RunResult& result);

/// The final table of one run (rows of freezing only if it froze), at most 80 columns unless the
/// run directory's name is longer.
std::string ResultTable(const RunResult& result);

/// The same config without and with freezing, side by side: accuracy, time, speed-up and what saved
/// work alone gives; then what they show, in words.
std::string ComparisonTable(const RunResult& full, const RunResult& frozen);

/// The summary of a comparison: both runs and the speed-up.
std::string ComparisonJson(const RunResult& full, const RunResult& frozen);

}  // namespace smartpipe
