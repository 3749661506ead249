#include "services/config/config_rules.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <initializer_list>

#include <sys/stat.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "services/base/limits.h"
#include "services/config/key_table.h"

namespace smartpipe {
namespace {

using Report = std::function<void(const std::string& key, const std::string& message)>;

// The multiples of m next to value, for a cure: "56 or 60"; none below m or above most (0 = no
// limit).
std::string NextMultiples(int64_t value, int64_t m, int64_t most = 0) {
  const int64_t below = value / m * m;
  if (below == 0) return absl::StrCat(m);
  if (most > 0 && below + m > most) return absl::StrCat(below);
  return absl::StrCat(below, " or ", below + m);
}

void CheckBatch(const RunConfig& config, const Report& report) {
  const TrainConfig& train = config.train;
  if (train.batch_size % train.microbatches != 0) {
    report("train.batch_size",
           absl::StrCat(train.batch_size,
                        " is not a multiple of train.microbatches = ", train.microbatches,
                        "; give ", NextMultiples(train.batch_size, train.microbatches)));
  }
}

void CheckCuts(const RunConfig& config, const Report& report) {
  const std::vector<int64_t>& cuts = config.pipeline.cuts;
  if (cuts.empty()) return;
  const int64_t want = config.pipeline.stages - 1;
  if (static_cast<int64_t>(cuts.size()) != want) {
    report("pipeline.cuts",
           absl::StrCat("has ", cuts.size(), cuts.size() == 1 ? " entry" : " entries",
                        " but pipeline.stages = ", config.pipeline.stages, " needs ", want,
                        "; give ", want, ", or [] to let the planner choose"));
  }
  for (size_t i = 1; i < cuts.size(); ++i) {
    if (cuts[i] <= cuts[i - 1]) {
      report("pipeline.cuts", absl::StrCat("entries must ascend, but ", cuts[i], " follows ",
                                           cuts[i - 1], "; each stage needs at least one layer"));
      return;
    }
  }
  const int64_t num_layers = NumModelLayers(config.model.name);
  if (num_layers > 0 && cuts.back() >= num_layers) {
    report("pipeline.cuts",
           absl::StrCat("entry ", cuts.back(), " is behind the end of model ", config.model.name,
                        ", which has ", num_layers, " layers; give at most ", num_layers - 1));
  }
}

void CheckStages(const RunConfig& config, const Report& report) {
  const PipelineConfig& pipeline = config.pipeline;
  const int64_t each = pipeline.stages_per_worker;
  if (pipeline.stages % each != 0) {
    report("pipeline.stages",
           absl::StrCat(pipeline.stages,
                        " is not a multiple of pipeline.stages_per_worker = ", each, "; give ",
                        NextMultiples(pipeline.stages, each, NumModelLayers(config.model.name))));
  }
  if ((each > 1) == (pipeline.schedule == "interleaved_1f1b")) return;
  report("pipeline.schedule",
         absl::StrCat(pipeline.schedule,
                      each > 1 ? " runs one stage on each worker, but pipeline.stages_per_worker = "
                               : " is for several stages on each worker, but "
                                 "pipeline.stages_per_worker = ",
                      each,
                      each > 1 ? "; set it to 1, or pipeline.schedule = interleaved_1f1b"
                               : "; give at least 2, or pipeline.schedule = 1f1b"));
}

void CheckSchedule(const RunConfig& config, const Report& report) {
  const FreezeConfig& freeze = config.freeze;
  if (freeze.policy == "schedule" && freeze.schedule.empty()) {
    report("freeze.policy",
           "policy schedule needs freeze.schedule, a list like [[100, 1], [200, 3]]");
  }
  if (freeze.policy != "schedule" && !freeze.schedule.empty()) {
    report("freeze.schedule",
           absl::StrCat("is only for policy schedule, but freeze.policy = ", freeze.policy,
                        "; remove the list (freeze.schedule=[]) or set freeze.policy=schedule"));
  }
  for (size_t i = 1; i < freeze.schedule.size(); ++i) {
    const auto& [last_step, last_frontier] = freeze.schedule[i - 1];
    const auto& [step, frontier] = freeze.schedule[i];
    if (step <= last_step) {
      report("freeze.schedule", absl::StrCat("steps must ascend, but ", step, " follows ",
                                             last_step, "; sort the list"));
    }
    if (frontier <= last_frontier) {
      report("freeze.schedule", absl::StrCat("frontiers must ascend, but ", frontier, " follows ",
                                             last_frontier, "; a schedule only freezes more"));
    }
  }
}

void CheckScheduleSteps(const RunConfig& config, const Report& report) {
  const int64_t interval = config.freeze.interval_steps;
  if (interval == 0) return;  // known only with the dataset's size; MakeRunShape checks it then
  for (const auto& [step, frontier] : config.freeze.schedule) {
    if (step % interval == 0) continue;
    report("freeze.schedule",
           absl::StrCat("step ", step, " is not a multiple of freeze.interval_steps = ", interval,
                        "; give ", NextMultiples(step, interval)));
    return;
  }
}

// Against the model's number of layers.
void CheckLayers(const RunConfig& config, const Report& report) {
  const int64_t num_layers = NumModelLayers(config.model.name);
  if (num_layers == 0) return;
  const std::string has = absl::StrCat("model ", config.model.name, " has ", num_layers, " layers");
  const FreezeConfig& freeze = config.freeze;
  if (config.pipeline.stages > num_layers) {
    report("pipeline.stages",
           absl::StrCat(config.pipeline.stages, " stages need as many layers, but ", has,
                        "; give at most ", num_layers));
  }
  if (freeze.min_trainable > num_layers) {
    report("freeze.min_trainable",
           absl::StrCat(freeze.min_trainable, " is more than there are: ", has));
    return;
  }
  const int64_t frontier_max = num_layers - freeze.min_trainable;
  if (freeze.policy == "fixed" && freeze.fixed_layers > frontier_max) {
    report("freeze.fixed_layers",
           absl::StrCat("cannot freeze ", freeze.fixed_layers, ": ", has,
                        " and freeze.min_trainable = ", freeze.min_trainable,
                        " of them stay trainable; give at most ", frontier_max));
  }
  if (freeze.policy == "schedule" && !freeze.schedule.empty() &&
      freeze.schedule.back().second > frontier_max) {
    report("freeze.schedule",
           absl::StrCat("cannot freeze up to layer ", freeze.schedule.back().second, ": ", has,
                        " and freeze.min_trainable = ", freeze.min_trainable,
                        " of them stay trainable; give at most ", frontier_max));
  }
}

void CheckLimits(const RunConfig& config, const Report& report) {
  const int64_t limit = config.data.limit_train;
  if (limit > 0 && limit < config.train.batch_size) {
    report("data.limit_train",
           absl::StrCat(limit, " samples are less than one batch of train.batch_size = ",
                        config.train.batch_size, "; give at least ", config.train.batch_size,
                        ", or 0 for all"));
  }
}

void CheckMomentum(const RunConfig& config, const Report& report) {
  // The default and 0 pass, so that optim.name can be changed alone.
  if (config.optim.name != "adamw" || config.optim.momentum == 0) return;
  if (config.optim.momentum == OptimConfig().momentum) return;
  report("optim.momentum",
         "adamw has no momentum (its betas are 0.9 and 0.999); remove the key or give 0");
}

void CheckPartial(const RunConfig& config, const Report& report) {
  if (!config.model.allow_partial || !config.model.weights.empty()) return;
  report("model.allow_partial",
         "has no effect without model.weights; name the file or remove the key");
}

void CheckTls(const RunConfig& config, const Report& report) {
  const TlsConfig& tls = config.tls;
  if (tls.ca.empty() == tls.cert.empty() && tls.cert.empty() == tls.key.empty()) return;
  for (const auto& [key, path] :
       {std::pair("tls.ca", tls.ca), {"tls.cert", tls.cert}, {"tls.key", tls.key}}) {
    if (path.empty()) {
      report(key,
             "is not given, but TLS needs tls.ca, tls.cert and tls.key; give all three or none");
    }
  }
}

bool IsDirectory(const std::string& path) {
  struct stat info;
  return stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
}

// Why the file cannot be read; empty = it can.
std::string WhyUnreadable(const std::string& path) {
  struct stat info;
  if (stat(path.c_str(), &info) != 0) {
    return errno == ENOENT ? "does not exist"
                           : absl::StrCat("cannot be opened: ", std::strerror(errno));
  }
  if (S_ISDIR(info.st_mode)) return "is a folder, not a file";
  if (!S_ISREG(info.st_mode)) return "is a pipe or a device, not a file";
  if (access(path.c_str(), R_OK) != 0)
    return absl::StrCat("cannot be read: ", std::strerror(errno));
  return "";
}

}  // namespace

void CheckRules(const RunConfig& config, const std::function<bool(absl::string_view)>& usable,
                const Report& report) {
  struct Rule {
    std::initializer_list<absl::string_view> keys;
    void (*check)(const RunConfig&, const Report&);
  };
  static const Rule kRules[] = {
      {{"train.batch_size", "train.microbatches"}, CheckBatch},
      {{"optim.name", "optim.momentum"}, CheckMomentum},
      {{"pipeline.stages", "pipeline.stages_per_worker", "pipeline.schedule"}, CheckStages},
      {{"pipeline.stages", "pipeline.cuts", "model.name"}, CheckCuts},
      {{"freeze.policy", "freeze.schedule"}, CheckSchedule},
      {{"freeze.interval_steps", "freeze.schedule"}, CheckScheduleSteps},
      {{"model.name", "pipeline.stages", "freeze.policy", "freeze.min_trainable",
        "freeze.fixed_layers", "freeze.schedule"},
       CheckLayers},
      {{"data.limit_train", "train.batch_size"}, CheckLimits},
      {{"model.weights", "model.allow_partial"}, CheckPartial},
      {{"tls.ca", "tls.cert", "tls.key"}, CheckTls},
  };
  for (const Rule& rule : kRules) {
    if (std::all_of(rule.keys.begin(), rule.keys.end(), usable)) rule.check(config, report);
  }
}

std::vector<ConfigProblem> CheckConfigFiles(const RunConfig& config,
                                            const std::vector<std::string>& dataset_files) {
  std::vector<ConfigProblem> problems;
  const auto report = [&](const std::string& key, const std::string& message) {
    problems.push_back({.line = 0, .key = key, .message = message});
  };
  const std::string& weights = config.model.weights;
  if (!weights.empty()) {
    if (const std::string why = WhyUnreadable(weights); !why.empty()) {
      report("model.weights",
             absl::StrCat("file \"", weights, "\" ", why,
                          "; give a safetensors file, or \"\" to start from random weights"));
    }
  }
  for (const auto& [key, path] : {std::pair("tls.ca", config.tls.ca),
                                  {"tls.cert", config.tls.cert},
                                  {"tls.key", config.tls.key}}) {
    const std::string why = path.empty() ? "" : WhyUnreadable(path);
    if (why.empty()) continue;
    report(key, absl::StrCat("file \"", path, "\" ", why,
                             "; `smartpipe certs DIR` makes ca.crt, all.crt and all.key"));
  }
  const std::string& folder = config.data.path;
  if (folder.empty() || dataset_files.empty()) return problems;
  if (!IsDirectory(folder)) {
    report("data.path", absl::StrCat("folder \"", folder, "\" does not exist; it must hold ",
                                     absl::StrJoin(dataset_files, ", ")));
    return problems;
  }
  for (const std::string& name : dataset_files) {
    const std::string plain = absl::StrCat(folder, "/", name);
    const std::string why = WhyUnreadable(plain);
    if (why.empty() || WhyUnreadable(plain + ".gz").empty()) continue;
    report("data.path", absl::StrCat("file \"", plain, "\" (or ", name, ".gz) ", why, "; dataset ",
                                     config.data.name, " needs it"));
  }
  return problems;
}

absl::StatusOr<RunShape> MakeRunShape(const RunConfig& config, int64_t num_train_samples) {
  int64_t samples = num_train_samples;
  if (config.data.limit_train > 0) samples = std::min(samples, config.data.limit_train);
  RunShape shape;
  shape.steps_per_epoch = samples / config.train.batch_size;
  if (shape.steps_per_epoch < 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        "train.batch_size: the training set has ", samples, " samples, less than one batch of ",
        config.train.batch_size, "; give a smaller batch_size or more data"));
  }
  shape.num_steps = config.train.epochs * shape.steps_per_epoch;
  if (config.train.max_steps > 0)
    shape.num_steps = std::min(shape.num_steps, config.train.max_steps);
  if (shape.num_steps > limits::kStepsMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("train.epochs: the run would have ", shape.num_steps, " steps, more than ",
                     limits::kStepsMax, "; give fewer epochs or train.max_steps"));
  }
  const int64_t interval = config.freeze.interval_steps;
  shape.interval_steps = interval > 0 ? interval : std::max<int64_t>(1, shape.steps_per_epoch / 4);
  const int64_t every = config.checkpoint.every_steps;
  shape.checkpoint_steps = every > 0 ? every : shape.steps_per_epoch;
  shape.num_boundaries = (shape.num_steps + shape.interval_steps - 1) / shape.interval_steps;
  for (const auto& [step, frontier] : config.freeze.schedule) {
    if (step >= shape.num_steps) {
      return absl::InvalidArgumentError(
          absl::StrCat("freeze.schedule: step ", step, " would never come: the run has ",
                       shape.num_steps, " steps, 0 .. ", shape.num_steps - 1,
                       "; give an earlier step, more epochs, or remove the entry"));
    }
    if (step % shape.interval_steps == 0) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("freeze.schedule: step ", step, " is not a multiple of the interval, ",
                     shape.interval_steps, " steps",
                     interval > 0 ? "" : " (a quarter epoch; freeze.interval_steps = 0)", "; give ",
                     NextMultiples(step, shape.interval_steps)));
  }
  return shape;
}

}  // namespace smartpipe
