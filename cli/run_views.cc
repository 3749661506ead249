#include "cli/run_views.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "cli/render.h"

namespace smartpipe {
namespace {

std::string StateName(const v1::Run& run) {
  if (run.paused()) return "paused";
  switch (run.state()) {
    case v1::RUN_STATE_WAITING:
      return "waiting";
    case v1::RUN_STATE_RUNNING:
      return "training";
    case v1::RUN_STATE_FINISHED:
      return "finished";
    case v1::RUN_STATE_FAILED:
      return "failed";
    case v1::RUN_STATE_STOPPED:
      return "stopped";
    default:
      return "unknown";
  }
}

std::string Ms(double seconds) {
  return seconds > 0 ? absl::StrFormat("%.1f ms", seconds * 1e3) : "-";
}

// "0-3,5" of ascending numbers.
template <typename Numbers>
std::string Ranges(const Numbers& numbers) {
  std::string text;
  for (int i = 0; i < numbers.size();) {
    int end = i + 1;
    while (end < numbers.size() && numbers[end] == numbers[end - 1] + 1) ++end;
    absl::StrAppend(&text, text.empty() ? "" : ",", numbers[i]);
    if (end > i + 1) absl::StrAppend(&text, "-", numbers[end - 1]);
    i = end;
  }
  return text.empty() ? "-" : text;
}

std::string WorkerState(const v1::WorkerStatus& worker) {
  if (worker.drained()) return "drained";
  if (worker.finished()) return "finished";
  return worker.connected() ? "connected" : "lost";
}

std::string RunLine(const v1::Run& run) {
  std::string text =
      absl::StrCat("run ", run.run_id(), ": ", StateName(run), ", generation ", run.generation());
  if (run.num_steps() == 0) return text;
  absl::StrAppend(&text, ", step ", run.step(), " of ", run.num_steps());
  if (run.steps_per_epoch() > 0) {
    absl::StrAppendFormat(
        &text, " (epoch %.2f)",
        static_cast<double>(run.step()) / static_cast<double>(run.steps_per_epoch()));
  }
  if (run.step() > 0) absl::StrAppendFormat(&text, ", loss %.4f", run.loss());
  if (run.samples_per_second() > 0) {
    absl::StrAppend(&text, ", ", FormatRate(run.samples_per_second()), " samples/s");
    const int64_t left = (run.num_steps() - run.step()) * run.batch_size();
    if (left > 0 && run.state() == v1::RUN_STATE_RUNNING && !run.paused()) {
      absl::StrAppend(&text, ", ",
                      FormatDuration(static_cast<double>(left) / run.samples_per_second()),
                      " to go");
    }
  }
  if (run.evaluations_size() > 0) {
    absl::StrAppendFormat(&text, ", test accuracy %.2f %%",
                          100 * run.evaluations().rbegin()->accuracy());
  }
  return text;
}

std::string PlanLine(const RunView& view) {
  if (!view.plan.has_plan()) return "";
  const v1::Plan& plan = view.plan.plan();
  std::string text =
      absl::StrCat("plan ", plan.plan_epoch(), ": layers ", view.plan.stages(), ", frontier ",
                   plan.frontier(), " of ", view.run.layers_size(), ", ", plan.schedule());
  if (view.plan.even_step_s() > 0) {
    absl::StrAppend(&text, ", predicted step ", Ms(view.plan.predicted_step_s()), " (at best ",
                    Ms(view.plan.even_step_s()), ")");
  }
  if (view.plan.has_next()) {
    absl::StrAppend(&text, "; plan ", view.plan.next().plan_epoch(), " from step ",
                    view.plan.next().effective_step(), " on");
  }
  return text + "\n";
}

std::string WorkersTable(const std::vector<v1::WorkerStatus>& workers) {
  std::vector<std::vector<std::string>> rows = {
      {"worker", "stages", "layers", "step", "work", "idle", "verdict wait", "state", "address"}};
  for (const v1::WorkerStatus& worker : workers) {
    const double idle = worker.step_s() > 0 && worker.work_s() > 0
                            ? std::clamp(1 - worker.work_s() / worker.step_s(), 0.0, 1.0)
                            : -1;
    rows.push_back({worker.worker_id(), Ranges(worker.stages()), Ranges(worker.layers()),
                    Ms(worker.step_s()), Ms(worker.work_s()),
                    idle < 0 ? "-" : absl::StrFormat("%.0f %%", 100 * idle),
                    Ms(worker.verdict_wait_s()), WorkerState(worker), worker.address()});
  }
  return FormatColumns(rows);
}

std::string DecisionParagraph(const v1::Verdict& verdict, int width) {
  return WrapHanging(
      absl::StrCat("step ", verdict.step(), ", boundary ", verdict.boundary(), ", ",
                   verdict.has_plan() ? absl::StrCat("plan ", verdict.plan_epoch()) : "keep",
                   verdict.stop() ? ", stop" : "", verdict.checkpoint() ? ", checkpoint" : "",
                   ", frontier ", verdict.frontier(), ": ", verdict.reason()),
      width, 2);
}

}  // namespace

std::string StatusText(const RunView& view, int width) {
  std::string text = WrapHanging(RunLine(view.run), width, 2);
  if (!view.run.message().empty())
    absl::StrAppend(&text, WrapHanging(view.run.message(), width, 2));
  absl::StrAppend(&text, WrapHanging(PlanLine(view), width, 2));
  if (view.run.speedup_limit() > 1) {
    absl::StrAppendFormat(&text, "the work saved by freezing so far allows %.2fx\n",
                          view.run.speedup_limit());
  }
  if (!view.workers.empty()) absl::StrAppend(&text, "\n", WorkersTable(view.workers));
  if (!view.verdicts.empty()) {
    absl::StrAppend(&text,
                    "\nlast decision: ", DecisionParagraph(view.verdicts.back(), width - 15));
  }
  std::string open;
  for (const v1::Order& order : view.orders) {
    if (order.done()) continue;
    absl::StrAppend(
        &open, WrapHanging(absl::StrCat("  ", order.text(), " at step ", order.step(), " (request ",
                                        order.request_id(), order.who().empty() ? "" : ", by ",
                                        order.who(), ")"),
                           width, 2));
  }
  if (!open.empty()) absl::StrAppend(&text, "\nopen orders:\n", open);
  return text;
}

std::string LayersText(const std::vector<v1::LayerStatus>& layers, int width) {
  if (layers.empty()) return "The run has not started: no layers are known yet.\n";
  std::vector<std::vector<std::string>> rows = {{"layer", "name", "stage", "worker", "state", "eta",
                                                 "forward", "input grad", "weight grad", "bytes"}};
  std::vector<std::pair<int64_t, std::string>> freezes;  // step, reason
  for (const v1::LayerStatus& layer : layers) {
    const std::string eta = std::isnan(layer.eta()) ? "-" : absl::StrFormat("%.3g", layer.eta());
    rows.push_back(
        {absl::StrCat(layer.layer()), layer.name(), absl::StrCat(layer.stage()), layer.worker_id(),
         layer.frozen() ? absl::StrCat("frozen at ", layer.frozen_since_step()) : "trains",
         layer.frozen() ? "-" : eta, Ms(layer.cost().forward_s()), Ms(layer.cost().input_grad_s()),
         Ms(layer.cost().weight_grad_s()), absl::StrCat(layer.cost().param_bytes())});
    if (!layer.frozen()) continue;
    if (freezes.empty() || freezes.back().first != layer.frozen_since_step())
      freezes.emplace_back(layer.frozen_since_step(), layer.frozen_reason());
  }
  std::string text = FormatColumns(rows);
  if (!freezes.empty()) text += "\n";
  for (const auto& [step, reason] : freezes)
    absl::StrAppend(&text, WrapHanging(absl::StrCat("at step ", step, ": ", reason), width, 2));
  return text;
}

std::string DecisionsText(const std::vector<v1::Verdict>& verdicts, int width) {
  if (verdicts.empty()) return "No decision yet.\n";
  std::string text;
  for (const v1::Verdict& verdict : verdicts)
    absl::StrAppend(&text, DecisionParagraph(verdict, width));
  return text;
}

std::string OrderText(const v1::OrderResult& result, bool validate_only, int width) {
  const v1::Order& order = result.order();
  const std::string when = order.step() < 0 ? "at once" : absl::StrCat("at step ", order.step());
  if (!validate_only) {
    return WrapHanging(absl::StrCat(order.text(), order.done() ? " was" : " is", " carried out ",
                                    when, " (request ", order.request_id(), ")."),
                       width, 2);
  }
  std::string text = absl::StrCat(order.text(), " would be carried out ", when, ".\n");
  if (!result.has_preview()) return WrapHanging(text, width, 2);
  const v1::Verdict& verdict = result.preview();
  absl::StrAppend(&text, "By what is known now: ", verdict.reason(), "\n");
  if (verdict.predicted_step_s() > 0) {
    absl::StrAppend(&text, "Predicted step: ", Ms(verdict.predicted_old_step_s()), " -> ",
                    Ms(verdict.predicted_step_s()), ", at best ", Ms(verdict.even_step_s()), ".\n");
  }
  if (verdict.moves_size() > 0) {
    absl::StrAppend(&text, "Moves ", verdict.moves_size(),
                    verdict.moves_size() == 1 ? " layer" : " layers", ", ", verdict.moved_bytes(),
                    " bytes: ",
                    absl::StrJoin(verdict.moves(), ", ",
                                  [](std::string* out, const v1::LayerMove& move) {
                                    absl::StrAppend(out, move.layer(), " from stage ",
                                                    move.from_stage(), " to ", move.to_stage());
                                  }),
                    ".\n");
  }
  return WrapHanging(text, width, 2);
}

}  // namespace smartpipe
