#include "freeze_service/core/orders.h"

#include <algorithm>
#include <iterator>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "freeze_service/core/options_check.h"
#include "freeze_service/core/reason.h"
#include "services/base/error_reason.h"
#include "services/base/limits.h"
#include "services/base/status_macros.h"

namespace smartpipe {
namespace {

template <typename T>
bool Is(const OrderRecord& record) {
  return std::holds_alternative<T>(record.given.order);
}

bool ChangesFrontier(const Order& order) {
  return std::holds_alternative<FreezeLayers>(order) ||
         std::holds_alternative<UnfreezeLayers>(order) ||
         std::holds_alternative<ChangePolicy>(order);
}

bool EndsGeneration(const Order& order) {
  return std::holds_alternative<DrainWorker>(order) || std::holds_alternative<StopRun>(order);
}

// The two cannot both be meant at one boundary. A stop comes before the drain that was there, and
// ends a pause.
bool Contradict(const Order& open, const Order& added) {
  if (std::holds_alternative<StopRun>(added)) return std::holds_alternative<StopRun>(open);
  if (std::holds_alternative<StopRun>(open) && std::holds_alternative<PauseRun>(added)) return true;
  return (ChangesFrontier(open) && ChangesFrontier(added)) ||
         (EndsGeneration(open) && EndsGeneration(added)) || open.index() == added.index();
}

absl::Status NothingToDo(absl::string_view sentence) {
  return WithReason(absl::FailedPreconditionError(sentence), {"NOTHING_TO_DO", {}});
}

absl::Status BadFrontier(std::string sentence, int32_t least, int32_t most) {
  return WithReason(
      absl::InvalidArgumentError(sentence),
      {"BAD_FRONTIER", {{"least", absl::StrCat(least)}, {"most", absl::StrCat(most)}}});
}

// By itself, and beside what lasts; `is_next`: for the next boundary that it can be given for. What
// comes before a later one is not known yet.
absl::Status CheckPossible(const FreezeLayers& freeze, const OrderContext& context, const Orders&,
                           bool is_next) {
  const int32_t most = context.num_layers - context.policy.min_trainable;
  if (freeze.frontier.value() < 1 || freeze.frontier.value() > most) {
    return BadFrontier(
        absl::StrCat("the frontier is ", freeze.frontier.value(), ", it must be in 1..", most,
                     ": the model has ", Counted(context.num_layers, "layer"),
                     " and freeze.min_trainable is ", context.policy.min_trainable),
        1, most);
  }
  if (!is_next || freeze.frontier > context.frontier) return absl::OkStatus();
  return NothingToDo(absl::StrCat("the frontier is ", context.frontier.value(),
                                  " already; UnfreezeLayers lowers it"));
}

absl::Status CheckPossible(const UnfreezeLayers& unfreeze, const OrderContext& context,
                           const Orders&, bool is_next) {
  const int32_t most = context.num_layers - 1;
  if (unfreeze.frontier.value() < 0 || unfreeze.frontier.value() > most) {
    return BadFrontier(
        absl::StrCat("the frontier is ", unfreeze.frontier.value(), ", it must be in 0..", most), 0,
        most);
  }
  if (!is_next || unfreeze.frontier < context.frontier) return absl::OkStatus();
  return NothingToDo(absl::StrCat("layers from ", unfreeze.frontier.value(),
                                  " on train already: the frontier is ", context.frontier.value()));
}

absl::Status CheckPossible(const RebalanceStages& rebalance, const OrderContext& context,
                           const Orders&, bool) {
  if (context.execution.num_stages == 1) {
    return NothingToDo("there is one stage: nothing can be moved");
  }
  if (rebalance.cuts.empty()) return absl::OkStatus();
  ExecutionOptions execution = context.execution;
  execution.cuts = rebalance.cuts;
  absl::Status status = CheckExecution(execution);
  if (status.ok() && rebalance.cuts.back().value() >= context.num_layers) {
    status = absl::InvalidArgumentError(
        absl::StrCat("the cuts end with ", rebalance.cuts.back().value(), ", but the model has ",
                     Counted(context.num_layers, "layer")));
  }
  return WithReason(std::move(status), {"BAD_CUTS", {}});
}

// Its boundary must be known: see CheckPolicies.
absl::Status CheckPossible(const ChangePolicy&, const OrderContext&, const Orders&, bool) {
  return absl::OkStatus();
}

absl::Status CheckPolicy(const PolicyOptions& policy, const OrderContext& context) {
  SP_RETURN_IF_ERROR(MakePolicy(policy).status());
  SP_RETURN_IF_ERROR(CheckFitsModel(policy, context.num_layers));
  return CheckScheduleSteps(policy, context.length);
}

// Whether each policy is possible that comes out of the open changes and `added`, in the order of
// their boundaries.
absl::Status CheckPolicies(const OrderRecord& added, const OrderContext& context,
                           const Orders& orders) {
  std::vector<const OrderRecord*> changes;
  for (const OrderRecord& record : orders.records) {
    if (!record.done && Is<ChangePolicy>(record)) changes.push_back(&record);
  }
  changes.push_back(&added);
  std::stable_sort(changes.begin(), changes.end(), [](const OrderRecord* a, const OrderRecord* b) {
    return a->boundary < b->boundary;
  });
  PolicyOptions policy = context.policy;
  for (const OrderRecord* record : changes) {
    PolicyOptions next = Changed(policy, std::get<ChangePolicy>(record->given.order));
    absl::Status status = CheckPolicy(next, context);
    if (!status.ok() && record != &added) {
      status = Annotate(status, absl::StrCat("the order ", record->given.request_id, " at step ",
                                             record->step.value(), " could not follow it"));
    }
    SP_RETURN_IF_ERROR(WithReason(std::move(status), {"BAD_POLICY", {}}));
    if (record == &added && next == policy) return NothingToDo("that is the policy already");
    policy = std::move(next);
  }
  return absl::OkStatus();
}

absl::Status CheckPossible(const PauseRun&, const OrderContext&, const Orders& orders, bool) {
  if (!orders.paused_at.has_value()) return absl::OkStatus();
  return NothingToDo("the run is paused already, or is going to be");
}

absl::Status CheckPossible(const ResumeRun&, const OrderContext&, const Orders& orders, bool) {
  if (orders.paused_at.has_value()) return absl::OkStatus();
  return NothingToDo("the run is not paused");
}

absl::Status CheckPossible(const TakeCheckpoint&, const OrderContext&, const Orders&, bool) {
  return absl::OkStatus();
}

absl::Status CheckPossible(const DrainWorker& drain, const OrderContext& context,
                           const Orders& orders, bool) {
  const std::vector<WorkerId>& workers = context.workers;
  if (std::find(workers.begin(), workers.end(), drain.worker) == workers.end()) {
    return WithReason(absl::NotFoundError(absl::StrCat("worker \"", drain.worker.value(),
                                                       "\" does not take part in the run")),
                      {"UNKNOWN_WORKER", {}});
  }
  int32_t num_left = context.execution.num_workers() - 1;
  for (const OrderRecord& record : orders.records) {
    const auto* other = std::get_if<DrainWorker>(&record.given.order);
    const bool leaves = other != nullptr && (!record.done || orders.leaving == other->worker);
    if (leaves && other->worker == drain.worker) {
      return NothingToDo(absl::StrCat("worker \"", drain.worker.value(),
                                      "\" leaves already, at step ", record.step.value()));
    }
    num_left -= leaves ? 1 : 0;
  }
  if (num_left > 0) return absl::OkStatus();
  return WithReason(
      absl::FailedPreconditionError(
          "it is the last worker, so nobody could go on: stop the run, and resume it elsewhere"),
      {"LAST_WORKER", {}});
}

absl::Status CheckPossible(const StopRun&, const OrderContext&, const Orders& orders, bool) {
  if (orders.stop_why.empty()) return absl::OkStatus();
  return NothingToDo(absl::StrCat("the run stops already: ", orders.stop_why));
}

absl::StatusOr<IntervalIndex> FindBoundary(const OrderGiven& given, const OrderContext& context,
                                           const Orders& orders) {
  const RunLength& length = context.length;
  IntervalIndex next =
      ChangesFrontier(given.order) ? context.next_undecided : context.next_boundary;
  if (std::holds_alternative<ResumeRun>(given.order)) {
    if (!given.step.has_value()) return *orders.paused_at;
    return WithReason(
        absl::InvalidArgumentError("an order to resume takes effect at once; give it no step"),
        {"NO_BOUNDARY_STEP", {}});
  }
  if (given.step.has_value()) {
    const int64_t step = given.step->value();
    if (step < 0 || step % length.interval_steps != 0 || step >= length.num_steps) {
      return WithReason(
          absl::InvalidArgumentError(
              absl::StrCat("step ", step, " is no boundary of the run: give a multiple of ",
                           length.interval_steps, " below ", length.num_steps)),
          {"NO_BOUNDARY_STEP", {{"interval_steps", absl::StrCat(length.interval_steps)}}});
    }
    const IntervalIndex boundary(step / length.interval_steps);
    if (boundary >= next) return boundary;
    return WithReason(
        absl::FailedPreconditionError(absl::StrCat(
            "step ", step, " is too early, it has its verdict; the next that can be is step ",
            length.step_of(next).value())),
        {"TOO_LATE", {{"earliest_step", absl::StrCat(length.step_of(next).value())}}});
  }
  if (length.has_boundary(next)) return next;
  return WithReason(absl::FailedPreconditionError(
                        "no boundary is left at which it could be carried out: the run ends soon"),
                    {"NO_BOUNDARY_LEFT", {}});
}

}  // namespace

absl::string_view OrderName(const Order& order) {
  static constexpr absl::string_view kNames[] = {"FreezeLayers", "UnfreezeLayers", "Rebalance",
                                                 "SetPolicy",    "Pause",          "Resume",
                                                 "Checkpoint",   "DrainWorker",    "Stop"};
  static_assert(std::variant_size_v<Order> == std::size(kNames));
  return kNames[order.index()];
}

void Postpone(IntervalIndex first, const RunLength& length, Orders* orders) {
  const IntervalIndex next = first + 1;
  const bool exists = length.has_boundary(next);
  for (OrderRecord& record : orders->records) {
    if (record.boundary > first && length.has_boundary(record.boundary) &&
        (Is<RebalanceStages>(record) || Is<TakeCheckpoint>(record))) {
      record.done = false;
    }
    if (record.done || record.boundary > first) continue;
    record.boundary = next;
    record.step = length.step_of(next);
    record.done = !exists;
  }
  if (orders->paused_at.has_value() && *orders->paused_at <= first) {
    orders->paused_at = next;
    if (!exists) orders->paused_at.reset();
  }
}

ExecutionOptions AfterDrains(ExecutionOptions execution, size_t num_drained) {
  if (num_drained == 0) return execution;
  execution.num_stages -= static_cast<int32_t>(num_drained) * execution.stages_per_worker;
  execution.cuts.clear();  // they are meant for more stages
  return execution;
}

std::string WhoAndWhy(const OrderGiven& given) {
  return absl::StrCat("ordered by ", given.who.empty() ? "an operator" : given.who,
                      given.why.empty() ? "" : ": ", given.why);
}

std::string WhyStopped(const OrderGiven& given) {
  return given.who.empty() && !given.why.empty() ? given.why : WhoAndWhy(given);
}

const OrderRecord* FindOrder(const Orders& orders, absl::string_view request_id) {
  for (const OrderRecord& record : orders.records) {
    if (record.given.request_id == request_id) return &record;
  }
  return nullptr;
}

absl::Status CheckRequestId(const OrderGiven& given, const Orders& orders) {
  const OrderRecord* known = FindOrder(orders, given.request_id);
  if (known == nullptr || known->given == given) return absl::OkStatus();
  return WithReason(absl::AlreadyExistsError(absl::StrCat(
                        "request_id \"", given.request_id, "\" belongs to another order (",
                        OrderName(known->given.order), "); give a new one")),
                    {"REQUEST_ID_IN_USE", {}});
}

absl::StatusOr<OrderRecord> CheckOrder(const OrderGiven& given, const OrderContext& context,
                                       const Orders& orders) {
  if (const OrderRecord* known = FindOrder(orders, given.request_id)) return *known;
  const auto num_open = std::count_if(orders.records.begin(), orders.records.end(),
                                      [](const OrderRecord& record) { return !record.done; });
  if (num_open >= limits::kOrdersOpenMax) {
    return WithReason(
        absl::ResourceExhaustedError(absl::StrCat(num_open, " orders are open; that is the limit")),
        {"TOO_MANY_ORDERS", {}});
  }
  SP_RETURN_IF_ERROR(std::visit(
      [&](const auto& order) {
        return CheckPossible(order, context, orders, !given.step.has_value());
      },
      given.order));
  SP_ASSIGN_OR_RETURN(const IntervalIndex boundary, FindBoundary(given, context, orders));
  OrderRecord record{
      .given = given, .boundary = boundary, .step = context.length.step_of(boundary)};
  if (Is<ChangePolicy>(record)) SP_RETURN_IF_ERROR(CheckPolicies(record, context, orders));
  for (const OrderRecord& other : orders.records) {
    if (other.done || other.boundary != boundary || !Contradict(other.given.order, given.order))
      continue;
    if (Is<StopRun>(record) && Is<StopRun>(other)) {
      return NothingToDo(absl::StrCat("the run stops already at step ", other.step.value(), ": ",
                                      WhyStopped(other.given)));
    }
    return WithReason(
        absl::FailedPreconditionError(absl::StrCat(
            "the order ", other.given.request_id, " (", OrderName(other.given.order),
            ") is to be carried out at step ", other.step.value(), ", too; give another step")),
        {"CONFLICT", {{"request_id", other.given.request_id}}});
  }
  return record;
}

void Accept(OrderRecord record, Orders* orders) {
  if (Is<PauseRun>(record)) orders->paused_at = record.boundary;
  const bool resumes = Is<ResumeRun>(record);
  const bool would_hold_a_stop = Is<StopRun>(record) && orders->paused_at == record.boundary;
  if (resumes || would_hold_a_stop) {
    orders->paused_at.reset();
    for (OrderRecord& other : orders->records) {
      if (Is<PauseRun>(other)) other.done = true;
    }
  }
  if (resumes) record.done = true;
  orders->records.push_back(std::move(record));
  if (orders->records.size() > static_cast<size_t>(limits::kOrdersRemembered)) {
    const auto oldest = std::find_if(orders->records.begin(), orders->records.end(),
                                     [](const OrderRecord& old) { return old.done; });
    if (oldest != orders->records.end()) orders->records.erase(oldest);
  }
}

PolicyOptions Changed(PolicyOptions policy, const ChangePolicy& change) {
  policy.policy = change.policy.value_or(policy.policy);
  policy.tau = change.tau.value_or(policy.tau);
  policy.lambda_max = change.lambda_max.value_or(policy.lambda_max);
  policy.warmup_intervals = change.warmup_intervals.value_or(policy.warmup_intervals);
  policy.hits = change.hits.value_or(policy.hits);
  policy.min_trainable = change.min_trainable.value_or(policy.min_trainable);
  policy.fixed_layers = change.fixed_layers.value_or(policy.fixed_layers);
  if (!change.schedule.empty()) policy.schedule = change.schedule;
  return policy;
}

BoundaryOrders CarryOut(IntervalIndex boundary, bool is_decided, const PolicyOptions& policy,
                        Orders* orders) {
  BoundaryOrders result;
  const auto say = [&result](absl::string_view what, const OrderGiven& given) {
    absl::StrAppend(&result.sentence, result.sentence.empty() ? "" : "; ", what, ", ",
                    WhoAndWhy(given));
  };
  for (OrderRecord& record : orders->records) {
    const OrderGiven& given = record.given;
    if (record.done || record.boundary != boundary || Is<PauseRun>(record)) continue;
    if (is_decided && ChangesFrontier(given.order)) continue;
    record.done = true;
    if (const auto* freeze = std::get_if<FreezeLayers>(&given.order)) {
      result.freeze = freeze->frontier;
      result.frontier_why = WhoAndWhy(given);
      if (orders->keep_trainable.has_value() && *orders->keep_trainable < freeze->frontier)
        orders->keep_trainable.reset();
    } else if (const auto* unfreeze = std::get_if<UnfreezeLayers>(&given.order)) {
      result.unfreeze = unfreeze->frontier;
      result.frontier_why = WhoAndWhy(given);
      orders->keep_trainable = unfreeze->frontier;
    } else if (const auto* change = std::get_if<ChangePolicy>(&given.order)) {
      PolicyOptions changed = Changed(result.policy.value_or(policy), *change);
      // It was possible when it was ordered, and may come together with others since a recovery.
      if (const absl::Status status = MakePolicy(changed).status(); !status.ok()) {
        say(absl::StrCat("the policy stays ", policy.policy, ": ", status.message()), given);
        continue;
      }
      orders->keep_trainable.reset();
      say(absl::StrCat("the policy is ", changed.policy, " from here on"), given);
      result.policy = std::move(changed);
    } else if (const auto* rebalance = std::get_if<RebalanceStages>(&given.order)) {
      result.cuts = rebalance->cuts;
      say("a rebalance", given);
    } else if (Is<TakeCheckpoint>(record)) {
      result.checkpoint = true;
      say("a checkpoint", given);
    } else if (const auto* drain = std::get_if<DrainWorker>(&given.order)) {
      result.stop = true;
      orders->leaving = drain->worker;
      say(absl::StrCat("worker ", drain->worker.value(), " leaves behind a checkpoint"), given);
    } else if (Is<StopRun>(record)) {
      result.stop = true;
      orders->stop_why = WhyStopped(given);
      absl::StrAppend(&result.sentence, result.sentence.empty() ? "" : "; ",
                      "the run stops behind a checkpoint: ", WhyStopped(given));
    }
  }
  return result;
}

}  // namespace smartpipe
