#include "tests/unit/core/core_harness.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "pipeline/plan.h"

namespace smartpipe::testutil {
namespace {

std::string Text(const StartGeneration& start, int32_t num_layers) {
  return absl::StrCat("start generation ", start.generation.value(), " with ",
                      absl::StrJoin(start.members, " ", absl::StreamFormatter()), ": epoch ",
                      start.plan.plan_epoch.value(), " ",
                      FormatCuts(start.plan.cuts, num_layers, start.plan.frontier), " ",
                      start.plan.schedule, " credits ", absl::StrJoin(start.plan.credits, ","),
                      start.step > Step(0) ? absl::StrCat(" from step ", start.step.value()) : "");
}

std::string Text(const Verdict& verdict, int32_t num_layers) {
  return absl::StrCat(
      "boundary ", verdict.boundary.value(), " step ", verdict.step.value(), " ",
      verdict.stop ? "STOP " : "", verdict.checkpoint ? "CHECKPOINT " : "",
      verdict.plan.has_value() ? "PLAN" : "keep", " epoch ", verdict.plan_epoch.value(), " ",
      FormatCuts(verdict.cuts, num_layers, verdict.frontier), "\n  ", verdict.reason);
}

std::string Text(const EndGeneration& end, int32_t) {
  return absl::StrCat("end generation ", end.generation.value(), ": ", end.reason);
}

std::string Text(const OrderAccepted& accepted, int32_t) {
  return absl::StrCat("order ", accepted.request_id, " at boundary ", accepted.boundary.value(),
                      " step ", accepted.step.value());
}

std::string Text(const WorkerDrained& drained, int32_t) {
  return absl::StrCat("drained ", drained.worker.value(), ": ", drained.reason);
}

std::string Text(const EndRun& end, int32_t) {
  return absl::StrCat("end ", end.success ? "success" : "failure", ": ", end.reason);
}

}  // namespace

LayerInfo MakeLayer(const std::string& name, double forward_ms, double input_grad_ms,
                    double weight_grad_ms, int64_t state_bytes) {
  LayerCost cost;
  cost.forward_s = forward_ms * 1e-3;
  cost.input_grad_s = input_grad_ms * 1e-3;
  cost.weight_grad_s = weight_grad_ms * 1e-3;
  cost.param_bytes = state_bytes / 2;
  cost.state_bytes = state_bytes;
  return {name, cost};
}

std::vector<LayerInfo> MakeLayers(int32_t num_layers) {
  std::vector<LayerInfo> layers;
  for (int32_t i = 0; i < num_layers; ++i) {
    const std::string name = i == 0                ? "stem"
                             : i == num_layers - 1 ? "head"
                                                   : absl::StrCat("block", i);
    layers.push_back(MakeLayer(name, 1, 1, 1, 1000));
  }
  return layers;
}

std::vector<Verdict> InForce(const Coordinator& coordinator) {
  const VerdictHistory& history = coordinator.verdicts();
  std::vector<Verdict> verdicts;
  for (IntervalIndex b(0); b.value() < history.size(); ++b) verdicts.push_back(history.at(b));
  return verdicts;
}

LayerStatistics MakeStatistics(LayerIndex layer, double eta) {
  LayerStatistics s;
  s.layer = layer;
  s.has_previous = true;
  s.previous_grad_norm_l2 = 1;
  s.grad_norm_l2 = 1 + eta;
  s.grad_difference_norm_l2 = eta;
  s.num_microbatches = 40;
  return s;
}

IntervalReported MakeReport(const Coordinator& coordinator, const std::vector<WorkerId>& members,
                            Rank rank, IntervalIndex interval, const std::vector<double>& eta,
                            const std::vector<LayerInfo>& costs) {
  IntervalReported report;
  report.worker = members[rank.value()];
  report.generation = coordinator.generation();
  report.interval = interval;
  report.step_s = 0.02;
  if (coordinator.verdicts().empty()) return report;
  const Verdict verdict = coordinator.verdicts().at(
      std::clamp(interval, IntervalIndex(0), coordinator.verdicts().last()));
  report.plan_epoch = verdict.plan_epoch;
  if (rank.value() > static_cast<int32_t>(verdict.cuts.size())) return report;  // fewer stages then
  const LayerRange stage =
      StageLayers(verdict.cuts, static_cast<int32_t>(costs.size()), StageIndex(rank.value()));
  for (LayerIndex layer = stage.first_layer; layer < stage.end_layer; ++layer) {
    LayerStatistics statistics = MakeStatistics(layer, eta[layer.value()]);
    LayerCost cost = costs[layer.value()].cost;
    if (interval.value() == 0) statistics.has_previous = false;
    if (layer < verdict.frontier) {
      statistics = {.layer = layer, .frozen = true};
      cost.weight_grad_s = cost.optimize_s = -1;
    }
    if (layer <= verdict.frontier) cost.input_grad_s = -1;
    report.statistics.push_back(statistics);
    report.costs.push_back(cost);
  }
  return report;
}

std::string Text(const absl::StatusOr<std::vector<Decision>>& result, int32_t num_layers) {
  if (!result.ok()) {
    return absl::StrCat(absl::StatusCodeToString(result.status().code()), ": ",
                        result.status().message());
  }
  if (result->empty()) return "ok";
  return absl::StrJoin(*result, "\n", [&](std::string* out, const Decision& decision) {
    out->append(std::visit([&](const auto& value) { return Text(value, num_layers); }, decision));
  });
}

}  // namespace smartpipe::testutil
