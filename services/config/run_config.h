// The configuration of one run: the struct, its strict TOML form, and the table of all keys.
//
// One text travels everywhere: the launcher resolves file and --set into canonical TOML, the
// service serves that text, each worker parses it with this same code. Adding a key: one member
// here, one line in the table of run_config.cc, one line in docs.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "services/base/ids.h"

namespace smartpipe {

struct TrainConfig {
  int64_t epochs = 8;
  int64_t batch_size = 64;
  int64_t microbatches = 4;
  int64_t seed = 1;
  int64_t max_steps = 0;  // 0 = no bound beside the epochs
};

struct OptimConfig {
  std::string name = "sgd";
  double lr = 0.05;
  double momentum = 0.9;  // sgd only
  double weight_decay = 0.0;
};

struct EvalConfig {
  int64_t every_epochs = 1;  // 0 = only at the end
};

struct PipelineConfig {
  int64_t stages = 2;
  int64_t stages_per_worker = 1;  // stage s runs on worker s mod (stages / stages_per_worker)
  std::string schedule = "1f1b";
  bool run_ahead = true;
  std::vector<int64_t> cuts;  // first layer of stages 1..S-1; empty = the planner chooses
  int64_t num_workers() const { return stages / stages_per_worker; }
};

struct FreezeConfig {
  std::string policy = "smartpipe";
  int64_t interval_steps = 0;  // 0 = a quarter epoch
  std::string statistic = "norm";
  double tau = 0.1;
  double lambda_max = 0.5;
  int64_t warmup_intervals = 2;
  int64_t hits = 1;
  int64_t min_trainable = 1;
  int64_t fixed_layers = 2;
  std::vector<std::pair<int64_t, int64_t>>
      schedule;  // (step, frontier), steps and frontiers ascending
};

struct RebalanceConfig {
  bool enabled = true;
  double min_gain = 0.03;
};

struct ModelConfig {
  std::string name = "convnet";
  std::string weights;  // safetensors file to start from; empty = keyed random init
  bool allow_partial = false;
};

struct DataConfig {
  std::string name = "fashion_mnist";
  std::string path;         // empty = the dataset's own default folder
  int64_t limit_train = 0;  // 0 = all
  int64_t limit_test = 0;
};

struct WorkerConfig {
  std::string device = "cpu";
  int64_t threads = 1;
  bool trace = true;
};

struct CheckpointConfig {
  int64_t every_steps = 0;  // 0 = once an epoch; after the last step in any case
  int64_t keep_last = 3;
};

struct RecoveryConfig {
  bool enabled = true;
  int64_t max_restarts = 10;  // within an hour
};

struct AddressConfig {
  std::string address;  // HOST:PORT; empty = a free port of this machine
};

/// Certificates of all processes of a local run; all paths are given, or none.
struct TlsConfig {
  std::string ca, cert, key;
};

struct RunConfig {
  TrainConfig train;
  OptimConfig optim;
  EvalConfig eval;
  PipelineConfig pipeline;
  FreezeConfig freeze;
  RebalanceConfig rebalance;
  ModelConfig model;
  DataConfig data;
  WorkerConfig worker;
  CheckpointConfig checkpoint;
  RecoveryConfig recovery;
  AddressConfig service;
  AddressConfig parameter_service;
  TlsConfig tls;
  double decision_timeout_s = 60;  // how long a worker waits for a verdict or a lost service
  double watchdog_s = 300;         // without a step; 0 = no watchdog
  std::string on_service_loss = "wait";
};

/// Where a message about the config points.
struct ConfigProblem {
  int line = 0;     // 1-based; 0 = not from a line (a --set value, a default, a combination over
                    // several keys)
  std::string key;  // "freeze.tau"
  std::string message;  // what is wrong, and the cure: 'unknown key "train.epoch": did you mean
                        // "train.epochs"?'
};

/// Parses and checks. `source` names the text in messages (a path). `sets` are --set words,
/// "table.key=value", applied after the file: a TOML value; an unquoted word is a string.
///
/// Reports every problem found, not only the first: returns INVALID_ARGUMENT whose message has one
/// line per problem,
/// "<source>:<line>: <key>: <message>".  Does not touch the file system.  Threads: pure.
absl::StatusOr<RunConfig> ParseRunConfig(const std::string& toml, const std::string& source,
                                         const std::vector<std::string>& sets = {});

/// The line for one problem, as ParseRunConfig's message has it.
std::string FormatConfigProblem(const ConfigProblem& problem, const std::string& source);

/// Same as ParseRunConfig, as a list; empty = the config is good. `config` (may be null) receives
/// the parsed values.
std::vector<ConfigProblem> CheckRunConfig(const std::string& toml,
                                          const std::vector<std::string>& sets, RunConfig* config);

/// Checks that need the file system: the weights file exists, a given data.path exists and holds
/// the dataset's files (the files' names come from `dataset_files`, relative names that must all be
/// in data.path).
std::vector<ConfigProblem> CheckConfigFiles(const RunConfig& config,
                                            const std::vector<std::string>& dataset_files);

/// Canonical TOML with every key, fixed order; ParseRunConfig of it gives an equal config.
std::string ToToml(const RunConfig& config);

/// One row of the table of keys, for `smartpipe config keys` and docs.
struct ConfigKey {
  std::string key, type, range, default_value, doc;
};
std::vector<ConfigKey> ConfigKeys();

/// Known values of the closed sets; the config refuses anything else with the nearest of these.
extern const std::vector<std::string> kPolicyNames, kScheduleNames, kModelNames, kDatasetNames,
    kOptimizerNames, kStatisticNames, kServiceLossNames, kDeviceNames;

/// Numbers derived from a config and the size of the training set, the same in every process.
struct RunShape {
  int64_t steps_per_epoch = 0;  // the last partial batch is dropped
  int64_t num_steps = 0;        // min(epochs * steps_per_epoch, max_steps if given)
  int64_t interval_steps = 0;   // K >= 1
  int64_t num_boundaries = 0;  // boundaries 0..num_boundaries-1 have a verdict: ceil(num_steps / K)
  int64_t checkpoint_steps = 0;  // >= 1, between checkpoints
};
/// Errors: INVALID_ARGUMENT when the training set has less than one batch, or a freeze.schedule
/// step is not a multiple of the interval or not before the run's end.
absl::StatusOr<RunShape> MakeRunShape(const RunConfig& config, int64_t num_train_samples);

}  // namespace smartpipe
