#include "cli/config_notes.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace smartpipe {
namespace {

std::string Counted(int64_t count, absl::string_view noun) {
  return absl::StrCat(count, " ", noun, count == 1 ? "" : "s");
}

// Why no layer can ever freeze; empty = one may, or nobody expects it.
std::string WhyNothingFreezes(const RunConfig& config, const RunShape& shape) {
  const FreezeConfig& freeze = config.freeze;
  if (freeze.policy == "smartpipe") {
    // Interval 0 has no interval before it to compare with.
    const int64_t first_evidence = std::max<int64_t>(1, freeze.warmup_intervals) + freeze.hits - 1;
    if (first_evidence + 2 < shape.num_boundaries) return "";
    return absl::StrCat(
        "the first freeze could come after ", first_evidence + 2,
        " intervals (freeze.warmup_intervals = ", freeze.warmup_intervals,
        ", freeze.hits = ", freeze.hits, ", and a decision takes two more), but the run has ",
        Counted(shape.num_boundaries, "interval"), " of ", Counted(shape.interval_steps, "step"),
        "; give fewer freeze.warmup_intervals, a smaller freeze.interval_steps or more epochs");
  }
  if (freeze.policy == "linear" &&
      (shape.steps_per_epoch + shape.interval_steps - 1) / shape.interval_steps >=
          shape.num_boundaries) {
    return "policy linear freezes from the second epoch on, and the run ends before; give more "
           "train.epochs";
  }
  if (freeze.policy == "fixed" && freeze.fixed_layers == 0)
    return "freeze.fixed_layers is 0; give at least 1, or freeze.policy = full";
  return "";
}

}  // namespace

std::string Headline(const CheckedConfig& checked) {
  const RunConfig& config = checked.config;
  const int64_t num_workers = config.pipeline.num_workers();
  std::string text = absl::StrCat(
      config.model.name, " on ", config.data.name, ", ", Counted(config.pipeline.stages, "stage"),
      num_workers == config.pipeline.stages ? ""
                                            : absl::StrCat(" on ", Counted(num_workers, "worker")),
      " (", config.pipeline.schedule, "), policy ", config.freeze.policy, ", seed ",
      config.train.seed);
  if (checked.shape) {
    absl::StrAppend(&text, "; ", Counted(checked.shape->num_steps, "step"), ", ",
                    checked.shape->steps_per_epoch, " an epoch, decisions every ",
                    Counted(checked.shape->interval_steps, "step"));
  }
  return text;
}

std::vector<std::string> ConfigNotes(const CheckedConfig& checked, int64_t num_cores) {
  std::vector<std::string> notes;
  const RunConfig& config = checked.config;
  const int64_t num_workers = config.pipeline.num_workers(), threads = config.worker.threads;
  const bool on_cpu = config.worker.device == "cpu";
  if (on_cpu && num_cores > 0 && num_workers * threads > num_cores) {
    notes.push_back(
        absl::StrCat(Counted(num_workers, "worker"), " with ", Counted(threads, "compute thread"),
                     num_workers == 1 ? "" : " each", " share this machine's ",
                     Counted(num_cores, "core"), ", so each of them works only part of the time"));
  }
  if (!checked.shape) return notes;
  if (const std::string why = WhyNothingFreezes(config, *checked.shape); !why.empty())
    notes.push_back(absl::StrCat("nothing can freeze in this run: ", why));
  return notes;
}

}  // namespace smartpipe
