#include "cli/run_result.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "cli/render.h"
#include "nlohmann/json.hpp"

namespace smartpipe {
namespace {

using Json = nlohmann::ordered_json;

// Whole numbers without a decimal point.
Json NumberJson(double value) {
  if (!std::isfinite(value)) return nullptr;
  if (value == std::floor(value) && std::fabs(value) < 1e15) return static_cast<int64_t>(value);
  return value;
}

Json RealJson(double value) { return std::isfinite(value) ? Json(value) : Json(nullptr); }

Json ResultJson(const RunResult& result) {
  Json decisions = Json::array();
  for (const DecisionRecord& decision : result.decisions) {
    decisions.push_back({{"step", decision.step},
                         {"plan_epoch", decision.plan_epoch},
                         {"frontier", decision.frontier},
                         {"cuts", decision.cuts},
                         {"reason", decision.reason}});
  }
  return {{"policy", result.policy},
          {"steps", result.steps},
          {"epochs", NumberJson(result.epochs)},
          {"num_layers", result.num_layers},
          {"num_stages", result.num_stages},
          {"frozen_layers", result.frozen_layers},
          {"rebalances", result.rebalances},
          {"layers_moved", result.layers_moved},
          {"test_accuracy", result.test_accuracy ? RealJson(*result.test_accuracy) : Json(nullptr)},
          {"train_loss", RealJson(result.train_loss)},
          {"wall_seconds", RealJson(result.wall_seconds)},
          {"total_seconds", RealJson(result.total_seconds)},
          {"samples_per_second", RealJson(result.samples_per_second)},
          {"speedup_limit", RealJson(result.speedup_limit)},
          {"verdict_wait_seconds", RealJson(result.verdict_wait_seconds)},
          {"switch_seconds", RealJson(result.switch_seconds)},
          {"report_seconds", RealJson(result.report_seconds)},
          {"checkpoint_seconds", RealJson(result.checkpoint_seconds)},
          {"checkpoint_bytes_written", result.checkpoint_bytes_written},
          {"checkpoint_bytes_shared", result.checkpoint_bytes_shared},
          {"resumed_from_step",
           result.resumed_from_step ? Json(*result.resumed_from_step) : Json(nullptr)},
          {"recoveries", result.recoveries},
          {"generations", result.generations},
          {"weights_sha256", result.weights_sha256},
          {"run_dir", result.run_dir},
          {"decisions", std::move(decisions)}};
}

// A name in a path may hold any bytes; what is no UTF-8 is replaced rather than thrown over.
std::string Dump(const Json& json) {
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::string PercentText(const std::optional<double>& share) {
  return share ? absl::StrFormat("%.2f %%", *share * 100) : "-";
}

std::string SpeedUpText(double factor) {
  return std::isfinite(factor) ? absl::StrFormat("%.2fx", factor) : "-";
}

double SpeedUp(const RunResult& full, const RunResult& frozen) {
  return full.wall_seconds / frozen.wall_seconds;
}

// The same words for the same number in both tables.
constexpr char kTrainLoss[] = "train loss";
constexpr char kTrainingTime[] = "training time";
constexpr char kFrozenLayers[] = "frozen layers";
constexpr char kRebalances[] = "rebalances";
constexpr char kSavedWork[] = "speed-up by saved work";

// What the comparison shows, in words.
std::string Conclusion(const RunResult& full, const RunResult& frozen) {
  if (frozen.frozen_layers == 0) {
    return absl::StrCat(
        "Nothing was frozen with policy ", frozen.policy,
        ", so both runs did the same work, and their difference in time is the machine's noise. ",
        frozen.policy == "smartpipe"
            ? "To see freezing, train longer (train.epochs), raise freeze.tau, or lower "
              "freeze.warmup_intervals; the eta of each layer is in decisions.jsonl."
            : "The reasons are in decisions.jsonl.");
  }
  const double speed_up = SpeedUp(full, frozen);
  if (!std::isfinite(speed_up)) return "";
  std::string text =
      absl::StrFormat("%s trained %.2f times as fast as %s", frozen.policy, speed_up, full.policy);
  if (full.test_accuracy && frozen.test_accuracy) {
    absl::StrAppend(&text, absl::StrFormat(", with %+.2f points of accuracy",
                                           (*frozen.test_accuracy - *full.test_accuracy) * 100));
  }
  absl::StrAppend(&text,
                  absl::StrFormat(". By saved work alone, freezing these layers at these steps "
                                  "gives at most %.2f",
                                  frozen.speedup_limit));
  if (speed_up > frozen.speedup_limit) {
    absl::StrAppend(&text, full.num_stages > 1 ? "; what is gained beyond it is idle time of the "
                                                 "pipeline that freezing removed, or the "
                                                 "machine's noise"
                                               : "; what is gained beyond it is the machine's "
                                                 "noise");
  }
  return text + ".";
}

}  // namespace

int64_t NumFreezes(const RunResult& result) {
  int64_t num_freezes = 0;
  int64_t frontier = 0;
  for (const DecisionRecord& decision : result.decisions) {
    if (decision.frontier > frontier) ++num_freezes;
    frontier = decision.frontier;
  }
  return num_freezes;
}

std::string SummaryJson(const RunResult& result) { return Dump(ResultJson(result)); }

std::string ResultTable(const RunResult& result) {
  const auto share = [&](double seconds) {
    return absl::StrCat(FormatDuration(seconds), " (",
                        absl::StrFormat("%.1f %%", 100 * seconds / result.wall_seconds),
                        " of the training time)");
  };
  std::vector<std::pair<std::string, std::string>> rows = {
      {"test accuracy", PercentText(result.test_accuracy)},
      {kTrainLoss, absl::StrFormat("%.4f, mean of the last epoch", result.train_loss)},
      {kTrainingTime,
       absl::StrCat(FormatDuration(result.wall_seconds), " (", FormatDuration(result.total_seconds),
                    " with start and evaluation)")},
      {"samples/s", FormatRate(result.samples_per_second)},
      {kFrozenLayers,
       absl::StrCat(result.frozen_layers, " of ", result.num_layers,
                    result.frozen_layers == 0
                        ? ""
                        : absl::StrCat(", in ", NumFreezes(result),
                                       NumFreezes(result) == 1 ? " decision" : " decisions"))},
  };
  if (result.rebalances > 0) {
    rows.push_back(
        {kRebalances, absl::StrCat(result.rebalances, ", ", result.layers_moved,
                                   result.layers_moved == 1 ? " layer" : " layers", " moved")});
  }
  if (result.frozen_layers > 0) {
    rows.push_back({kSavedWork, absl::StrCat(SpeedUpText(result.speedup_limit), " at most")});
  }
  rows.push_back({"wait for verdicts", share(result.verdict_wait_seconds)});
  rows.push_back({"statistics, reports", share(result.report_seconds)});
  rows.push_back({"checkpoints", share(result.checkpoint_seconds)});
  rows.push_back({"files", result.run_dir});
  std::string out;
  for (const auto& [name, value] : rows)
    absl::StrAppend(&out, absl::StrFormat("  %-24s %s\n", name, value));
  return out;
}

std::string ComparisonTable(const RunResult& full, const RunResult& frozen) {
  const double speed_up = SpeedUp(full, frozen);
  std::vector<std::vector<std::string>> rows = {
      {"", full.policy, frozen.policy},
      {"test accuracy", PercentText(full.test_accuracy), PercentText(frozen.test_accuracy)},
      {kTrainLoss, absl::StrFormat("%.4f", full.train_loss),
       absl::StrFormat("%.4f", frozen.train_loss)},
      {kTrainingTime, FormatDuration(full.wall_seconds), FormatDuration(frozen.wall_seconds)},
      {"samples/s", FormatRate(full.samples_per_second), FormatRate(frozen.samples_per_second)},
      {"speed-up", SpeedUpText(1), SpeedUpText(speed_up)},
      {kFrozenLayers, absl::StrCat(full.frozen_layers, " of ", full.num_layers),
       absl::StrCat(frozen.frozen_layers, " of ", frozen.num_layers)},
  };
  if (frozen.frozen_layers > 0) {
    rows.insert(rows.end() - 1,
                {kSavedWork, SpeedUpText(full.speedup_limit), SpeedUpText(frozen.speedup_limit)});
    rows.push_back({"freezes", absl::StrCat(NumFreezes(full)), absl::StrCat(NumFreezes(frozen))});
  }
  if (full.rebalances + frozen.rebalances > 0) {
    rows.push_back({kRebalances, absl::StrCat(full.rebalances), absl::StrCat(frozen.rebalances)});
    rows.push_back(
        {"layers moved", absl::StrCat(full.layers_moved), absl::StrCat(frozen.layers_moved)});
  }
  return absl::StrCat(FormatColumns(rows), "\n", Wrap(Conclusion(full, frozen), 79, 0),
                      "Files: ", full.run_dir, "\n       ", frozen.run_dir, "\n");
}

std::string ComparisonJson(const RunResult& full, const RunResult& frozen) {
  return Dump({{"speedup", RealJson(SpeedUp(full, frozen))},
               {"speedup_limit", RealJson(frozen.speedup_limit)},
               {full.policy, ResultJson(full)},
               {frozen.policy, ResultJson(frozen)}});
}

}  // namespace smartpipe
