#include "freeze_service/core/verdict.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "freeze_service/core/reason.h"
#include "freeze_service/core/replan.h"
#include "services/base/status_macros.h"

namespace smartpipe {
namespace {

int32_t NumLayers(const Evidence& evidence) { return static_cast<int32_t>(evidence.layers.size()); }

std::vector<std::string> LayerNames(const Evidence& evidence) {
  std::vector<std::string> names;
  for (const LayerInfo& layer : evidence.layers) names.push_back(layer.name);
  return names;
}

// The policy's word, with freeze.min_trainable applied; never below `frontier`.
PolicyDecision DecideFrontier(const VerdictContext& context, const Evidence& evidence,
                              LayerIndex frontier, IntervalIndex boundary) {
  PolicyInput input;
  input.num_layers = NumLayers(evidence);
  input.layer_names = LayerNames(evidence);
  input.frontier = frontier;
  input.boundary = boundary;
  input.step = context.length.step_of(boundary);
  input.steps_per_epoch = context.length.steps_per_epoch;
  input.interval = evidence.interval;
  input.eta_history = evidence.eta_history;
  input.no_evidence = evidence.no_evidence;
  PolicyDecision decision = context.policy.Decide(input);
  const int32_t min_trainable = context.options.policy.min_trainable;
  const LayerIndex most(std::max(0, input.num_layers - min_trainable));
  if (decision.frontier > most) {
    absl::StrAppend(&decision.reason, ", but freeze.min_trainable keeps the last ",
                    min_trainable == 1 ? "layer" : Counted(min_trainable, "layer"), " trainable");
  }
  decision.frontier = std::max(frontier, std::min(decision.frontier, most));
  return decision;
}

// What operators want of the frontier comes before what the policy says.
PolicyDecision WithOrders(PolicyDecision decision, LayerIndex frontier,
                          const BoundaryOrders& orders, std::optional<LayerIndex> keep_trainable) {
  if (keep_trainable.has_value() && decision.frontier > *keep_trainable) {
    absl::StrAppend(&decision.reason, ", but layers from ", keep_trainable->value(),
                    " on were unfrozen on order and stay trainable");
    decision.frontier = std::max(frontier, *keep_trainable);
  }
  const bool raises = orders.freeze.has_value() && *orders.freeze > decision.frontier;
  const bool lowers = orders.unfreeze.has_value() && *orders.unfreeze < decision.frontier;
  if (raises) return {*orders.freeze, orders.frontier_why};
  if (lowers) return {*orders.unfreeze, orders.frontier_why};
  if (!orders.frontier_why.empty()) {
    absl::StrAppend(&decision.reason, "; nothing is left to do of what was ", orders.frontier_why);
  }
  return decision;
}

std::vector<int32_t> Credits(const CoordinatorOptions& options, const Plan& plan,
                             int32_t num_layers) {
  const ScheduleShape shape{
      .num_stages = options.num_stages,
      .num_microbatches = options.num_microbatches,
      .num_frozen_stages = NumFrozenStages(plan.cuts, num_layers, plan.frontier),
      .stage_to_rank = DealStages(options.num_stages, options.num_workers())};
  return DefaultCredits(shape, options.schedule, options.run_ahead);
}

// A plan that starts the pipeline anew.
absl::StatusOr<Plan> StartPlan(const CoordinatorOptions& options, int32_t num_layers,
                               LayerIndex frontier, std::vector<LayerIndex> cuts,
                               const std::vector<WorkerId>& members) {
  Plan plan;
  plan.frontier = frontier;
  plan.cuts = std::move(cuts);
  for (int32_t rank : DealStages(options.num_stages, options.num_workers())) {
    plan.placement.push_back({members[rank]});
  }
  plan.schedule = options.schedule;
  if (static_cast<int32_t>(plan.cuts.size()) == options.num_stages - 1) {
    plan.credits = Credits(options, plan, num_layers);
  }
  SP_RETURN_IF_ERROR(ValidatePlan(plan, num_layers));
  return plan;
}

std::string FreezeSentence(const Evidence& evidence, LayerIndex old_frontier,
                           const PolicyDecision& decision) {
  const bool rises = decision.frontier > old_frontier;
  return absl::StrCat(rises ? "freezes " : "unfreezes ",
                      LayersLabel(std::min(old_frontier, decision.frontier),
                                  std::max(old_frontier, decision.frontier), LayerNames(evidence)),
                      ": ", decision.reason);
}

std::vector<double> NewestEta(const Evidence& evidence) {
  if (!evidence.eta_history.empty()) return evidence.eta_history.back();
  return std::vector<double>(evidence.layers.size(), std::numeric_limits<double>::quiet_NaN());
}

// Everything but reason, moves and predictions.
Verdict MakeVerdict(const VerdictContext& context, const Evidence& evidence, const Plan& plan,
                    IntervalIndex boundary) {
  Verdict verdict;
  verdict.boundary = boundary;
  verdict.step = context.length.step_of(boundary);
  verdict.frontier = plan.frontier;
  verdict.cuts = plan.cuts;
  verdict.plan_epoch = plan.plan_epoch;
  verdict.eta = NewestEta(evidence);
  return verdict;
}

void AddOrders(const BoundaryOrders& orders, Verdict* verdict) {
  verdict->checkpoint = orders.checkpoint;
  verdict->stop = orders.stop;
  if (!orders.sentence.empty()) absl::StrAppend(&verdict->reason, "; ", orders.sentence);
}

}  // namespace

PlannerInput MakePlannerInput(const CoordinatorOptions& options, const Evidence& evidence,
                              LayerIndex frontier) {
  PlannerInput input;
  for (const LayerInfo& layer : evidence.layers) input.layers.push_back(layer.cost);
  input.num_stages = options.num_stages;
  input.num_microbatches = options.num_microbatches;
  input.schedule = options.schedule;
  input.frontier = frontier;
  input.stages_per_worker = options.stages_per_worker;
  input.run_ahead = options.run_ahead;
  input.num_cores = options.num_cores;
  input.link_bytes_per_s = evidence.link_bytes_per_s;
  input.link_latency_s = evidence.link_latency_s;
  return input;
}

absl::StatusOr<Verdict> FirstVerdict(const VerdictContext& context, const Evidence& evidence,
                                     const std::vector<WorkerId>& members) {
  const CoordinatorOptions& options = context.options;
  const int32_t num_layers = NumLayers(evidence);
  const PolicyDecision decision =
      DecideFrontier(context, evidence, LayerIndex(0), IntervalIndex(0));
  const PlannerInput planner = MakePlannerInput(options, evidence, decision.frontier);
  SP_ASSIGN_OR_RETURN(const PartitionResult best, Partition(planner));

  SP_ASSIGN_OR_RETURN(const Plan plan,
                      StartPlan(options, num_layers, decision.frontier,
                                options.cuts.empty() ? best.cuts : options.cuts, members));
  SP_ASSIGN_OR_RETURN(const double step_s, SimulatedStepSeconds(planner, plan.cuts));

  Verdict verdict = MakeVerdict(context, evidence, plan, IntervalIndex(0));
  verdict.plan = plan;
  verdict.frontier_reason = decision.reason;
  verdict.predicted_step_s = step_s;
  verdict.even_step_s = best.even_s;
  verdict.reason = absl::StrCat(
      "start: cuts ", FormatCuts(plan.cuts, num_layers, plan.frontier),
      options.cuts.empty() ? " planned from the workers' profiles" : " from pipeline.cuts",
      ", step ", Milliseconds(step_s), " (at best ", Milliseconds(best.even_s),
      ": no cuts can be faster); ",
      decision.frontier.value() > 0 ? FreezeSentence(evidence, LayerIndex(0), decision)
                                    : absl::StrCat("nothing is frozen: ", decision.reason));
  return verdict;
}

absl::StatusOr<Verdict> VerdictAnew(const VerdictContext& context, const Evidence& evidence,
                                    const Verdict& in_force, const Plan& newest,
                                    const std::vector<WorkerId>& members, Step step, Plan* plan) {
  const CoordinatorOptions& options = context.options;
  const bool as_many = static_cast<int32_t>(in_force.cuts.size()) == options.num_stages - 1;
  std::vector<LayerIndex> cuts = in_force.cuts;
  if (options.rebalance_enabled || !as_many) {
    cuts = options.cuts;
    if (options.rebalance_enabled || cuts.empty()) {
      SP_ASSIGN_OR_RETURN(const PartitionResult best,
                          Partition(MakePlannerInput(options, evidence, in_force.frontier)));
      cuts = best.cuts;
    }
  }
  SP_ASSIGN_OR_RETURN(
      *plan, StartPlan(options, NumLayers(evidence), in_force.frontier, std::move(cuts), members));
  plan->plan_epoch = newest.plan_epoch + 1;
  plan->effective_step = step;
  Verdict verdict = in_force;
  verdict.cuts = plan->cuts;
  verdict.plan_epoch = plan->plan_epoch;
  verdict.stop = false;
  verdict.checkpoint = false;
  if (verdict.plan.has_value()) verdict.plan = *plan;
  return verdict;
}

Verdict NextVerdict(const VerdictContext& context, const Evidence& evidence, const Plan& plan,
                    IntervalIndex boundary, const std::optional<PolicyDecision>& decided,
                    const BoundaryOrders& orders, std::optional<LayerIndex> keep_trainable,
                    int32_t* num_proposals) {
  const CoordinatorOptions& options = context.options;
  const PolicyDecision decision =
      decided.has_value() ? *decided
                          : WithOrders(DecideFrontier(context, evidence, plan.frontier, boundary),
                                       plan.frontier, orders, keep_trainable);
  const bool changes = decision.frontier != plan.frontier;
  const Step step = context.length.step_of(boundary);
  const std::string freeze_sentence =
      changes ? FreezeSentence(evidence, plan.frontier, decision) : decision.reason;
  if (!changes && !orders.cuts.has_value() &&
      evidence.interval.value() < 0) {  // nothing new to plan with
    Verdict verdict = MakeVerdict(context, evidence, plan, boundary);
    if (decided.has_value()) verdict.eta.clear();
    verdict.frontier_reason = decision.reason;
    verdict.reason = absl::StrCat("keep: ", freeze_sentence);
    AddOrders(orders, &verdict);
    return verdict;
  }
  const ReplanResult replan =
      Replan({.planner = MakePlannerInput(options, evidence, decision.frontier),
              .cuts = plan.cuts,
              .may_move = options.rebalance_enabled,
              .frontier_changes = changes,
              .ordered = orders.cuts,
              .num_proposals = *num_proposals,
              .steps_left = context.length.num_steps - step.value(),
              .drain_s = evidence.drain_s,
              .bytes_per_s = evidence.bytes_per_s,
              .min_gain = options.rebalance_min_gain});
  *num_proposals = replan.num_proposals;

  Plan next = plan;
  const bool moves = replan.cuts != plan.cuts;
  if (changes || moves) {
    next.plan_epoch = plan.plan_epoch + 1;
    next.effective_step = step;
    next.frontier = decision.frontier;
    next.cuts = replan.cuts;
    next.credits = Credits(options, next, NumLayers(evidence));
  }
  Verdict verdict = MakeVerdict(context, evidence, next, boundary);
  if (changes || moves) verdict.plan = next;
  if (decided.has_value()) verdict.eta.clear();
  verdict.frontier_reason = decision.reason;
  verdict.moves = replan.moves;
  verdict.moved_bytes = replan.moved_bytes;
  verdict.predicted_old_step_s = replan.old_step_s;
  verdict.predicted_step_s = replan.step_s;
  verdict.even_step_s = replan.even_step_s;
  const std::string cut_sentence = replan.reason.empty() ? "" : absl::StrCat("; ", replan.reason);
  verdict.reason = moves && !changes
                       ? absl::StrCat(replan.reason, "; frontier stays ", plan.frontier.value(),
                                      ": ", freeze_sentence)
                       : absl::StrCat(changes ? "" : "keep: ", freeze_sentence, cut_sentence);
  AddOrders(orders, &verdict);
  return verdict;
}

}  // namespace smartpipe
