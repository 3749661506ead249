#include "freeze_service/core/coordinator.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "freeze_service/core/decision_text.h"
#include "freeze_service/core/evidence.h"
#include "freeze_service/core/membership.h"
#include "freeze_service/core/options_check.h"
#include "freeze_service/core/orders.h"
#include "freeze_service/core/reason.h"
#include "freeze_service/core/report_check.h"
#include "freeze_service/core/verdict.h"
#include "services/base/error_reason.h"
#include "services/base/status_macros.h"

namespace smartpipe {
namespace {

using Decisions = std::vector<Decision>;

std::string WorkerLabel(const WorkerId& worker) {
  return absl::StrCat("worker \"", worker.value(), "\"");
}

absl::string_view StateName(RunState state) {
  switch (state) {
    case RunState::kWaiting:
      return "waiting";
    case RunState::kRunning:
      return "running";
    case RunState::kFinished:
      return "finished";
    case RunState::kFailed:
      return "failed";
  }
  return "unknown";
}

class CoordinatorImpl final : public Coordinator {
 public:
  CoordinatorImpl(const CoordinatorOptions& options, std::unique_ptr<Policy> policy)
      : options_(options), policy_(std::move(policy)), membership_(options.num_workers()) {}

  absl::Status GoOn(CoordinatorState snapshot, VerdictHistory verdicts);

  absl::StatusOr<Decisions> Apply(const Event& event, absl::Time now) override {
    now_ = now;
    return std::visit([this](const auto& fact) { return Handle(fact); }, event);
  }

  RunState state() const override { return state_; }
  std::string state_message() const override;
  Generation generation() const override { return generation_; }
  const ExecutionOptions& execution() const override { return options_; }
  const RunHistory& history() const override { return history_; }
  const Orders& orders() const override { return orders_; }
  const PolicyOptions& policy() const override { return options_.policy; }
  absl::StatusOr<OrderPreview> Preview(const OrderGiven& given) const override;
  std::optional<int64_t> MemberIncarnation(const WorkerId& worker) const override {
    const std::optional<Rank> rank = membership_.FindRank(worker);
    if (!rank.has_value()) return std::nullopt;
    return membership_.members()[rank->value()].incarnation;
  }
  const std::optional<Plan>& plan() const override { return plan_; }
  const VerdictHistory& verdicts() const override { return verdicts_; }
  const Evidence& evidence() const override { return evidence_; }
  PlannerInput planner_input() const override {
    return MakePlannerInput(options_, evidence_, plan_->frontier);
  }
  const RunLength& length() const override {
    return has_started() || membership_.members().empty() ? length_
                                                          : membership_.members().front().length;
  }
  double SpeedupLimitOfRun() const override;
  CoordinatorState Snapshot() const override;
  std::string Dump() const override;

 private:
  // One handler per event: checks everything first, then changes state.
  absl::StatusOr<Decisions> Handle(const WorkerJoined& joined);
  absl::StatusOr<Decisions> Handle(const IntervalReported& report);
  absl::StatusOr<Decisions> Handle(const WorkerLost& lost);
  absl::StatusOr<Decisions> Handle(const WorkerFailed& failed);
  absl::StatusOr<Decisions> Handle(const WorkerFinished& finished);
  absl::StatusOr<Decisions> Handle(const OrderGiven& given);
  absl::StatusOr<Decisions> Handle(const FaultReported& fault);
  absl::StatusOr<Decisions> Handle(const RunResumed& resumed);

  bool has_started() const { return !verdicts_.empty(); }  // its first generation, at least
  bool ended() const { return state_ == RunState::kFinished || state_ == RunState::kFailed; }
  VerdictContext context() const { return {options_, *policy_, length()}; }

  absl::StatusOr<Rank> FindRank(const WorkerId& worker) const;
  absl::Status CheckRunning() const;
  absl::Status CheckGeneration(Generation generation) const;
  absl::Status CheckAgainstOptions(const WorkerJoined& joined) const;
  absl::Status CheckNewReport(const IntervalReported& report, Rank rank) const;
  absl::Status CheckSameRunAsBefore(const WorkerJoined& joined) const;
  absl::StatusOr<Decisions> Start(Membership complete);
  absl::StatusOr<Decisions> GoOnFrom(Step step, Membership complete);
  absl::StatusOr<Step> FindCheckpoint(const Membership& complete) const;
  /// Gives the verdict of the next boundary.  False: there is none, it is held back by a pause, or
  /// the generation stops before it.
  bool DecideNext(Decisions* decisions);
  /// What an earlier generation has decided for a boundary that has no verdict in this one yet.
  std::optional<PolicyDecision> EarlierDecision(IntervalIndex boundary) const;
  /// Learns from the intervals that are complete, and gives the verdicts that can be given.
  void DecideReady(Decisions* decisions);
  absl::StatusOr<OrderRecord> TryOrder(const OrderGiven& given) const;
  OrderContext order_context() const;
  /// The workers of the newest plan, by rank.
  std::vector<WorkerId> NewestWorkers() const;
  /// The worker that is to leave has left: the next generation is without it.
  void CompleteDrain(Decisions* decisions);
  Decisions End(bool success, std::string reason);
  /// Also of a run that was about to stop: it is not its order that ends it.
  Decisions Fail(std::string reason) {
    orders_.stop_why.clear();
    return End(false, std::move(reason));
  }
  Decisions BreakGeneration(std::string reason);
  void LeaveGeneration();
  /// Where the generation stops; nothing = at the end.
  std::optional<IntervalIndex> StopBoundary() const;
  std::string MemberLabel(Rank rank) const;

  absl::Time now_;  // of the event that is applied
  CoordinatorOptions options_;
  std::unique_ptr<Policy> policy_;
  Membership membership_;
  RunState state_ = RunState::kWaiting;
  std::string end_reason_;
  Generation generation_;
  RunLength length_;  // these as in CoordinatorState
  RunHistory history_;
  bool is_resuming_ = false;
  std::optional<Step> resume_step_;
  Orders orders_;
  std::optional<Plan> plan_;
  VerdictHistory verdicts_;
  std::vector<WorkerProgress> progress_;  // as in CoordinatorState
  Evidence evidence_;
  IntervalIndex next_to_learn_;
  int32_t num_proposals_ = 0;
  std::map<IntervalIndex, std::map<Rank, IntervalReported>> reports_;
};

// ---- Going on -----------------------------------------------------------------------------------

CoordinatorState CoordinatorImpl::Snapshot() const {
  std::vector<WorkerJoined> members = membership_.members();
  // In a generation all have those of the first one: megabytes, with hundreds of workers.
  if (!progress_.empty()) {
    for (size_t rank = 1; rank < members.size(); ++rank) members[rank].layers.clear();
  }
  return {.run_state = state_,
          .end_reason = end_reason_,
          .generation = generation_,
          .execution = options_,
          .length = length_,
          .history = history_,
          .is_resuming = is_resuming_,
          .resume_step = resume_step_,
          .policy = options_.policy,
          .orders = orders_,
          .members = std::move(members),
          .progress = progress_,
          .plan = plan_,
          .evidence = evidence_,
          .next_to_learn = next_to_learn_,
          .num_proposals = num_proposals_,
          .reports = reports_};
}

absl::Status CoordinatorImpl::GoOn(CoordinatorState snapshot, VerdictHistory verdicts) {
  SP_RETURN_IF_ERROR(CheckExecution(snapshot.execution));
  SP_ASSIGN_OR_RETURN(policy_, MakePolicy(snapshot.policy));
  options_.policy = std::move(snapshot.policy);
  static_cast<ExecutionOptions&>(options_) = snapshot.execution;
  membership_ = Membership(options_.num_workers());
  for (WorkerJoined& member : snapshot.members) {
    if (member.layers.empty()) member.layers = snapshot.members.front().layers;
    SP_RETURN_IF_ERROR(CheckDescription(member, options_.num_stages));
    SP_ASSIGN_OR_RETURN(const bool repeated, membership_.CheckJoin(member));
    if (!repeated) membership_.Add(member);
  }
  const bool in_generation = !snapshot.progress.empty();
  if (in_generation && (snapshot.progress.size() != static_cast<size_t>(options_.num_workers()) ||
                        !membership_.complete() || verdicts.empty())) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the snapshot has ", Counted(membership_.members().size(), "member"), ", ",
        snapshot.progress.size(), " of them started, which does not fit ",
        Counted(verdicts.size(), "verdict"), " and ", Counted(options_.num_workers(), "worker")));
  }
  plan_ = std::move(snapshot.plan);
  if (plan_.has_value() == verdicts.empty()) {
    return absl::InvalidArgumentError("the snapshot's plan does not fit the verdicts");
  }
  state_ = snapshot.run_state;
  end_reason_ = std::move(snapshot.end_reason);
  generation_ = snapshot.generation;
  length_ = snapshot.length;
  history_ = std::move(snapshot.history);
  is_resuming_ = snapshot.is_resuming;
  resume_step_ = snapshot.resume_step;
  orders_ = std::move(snapshot.orders);
  progress_ = std::move(snapshot.progress);
  evidence_ = std::move(snapshot.evidence);
  next_to_learn_ = snapshot.next_to_learn;
  num_proposals_ = snapshot.num_proposals;
  reports_ = std::move(snapshot.reports);
  verdicts_ = std::move(verdicts);
  return absl::OkStatus();
}

// ---- Joining ------------------------------------------------------------------------------------

absl::Status CoordinatorImpl::CheckAgainstOptions(const WorkerJoined& joined) const {
  const int32_t num_layers = static_cast<int32_t>(joined.layers.size());
  if (!options_.cuts.empty() && options_.cuts.back().value() >= num_layers) {
    return absl::InvalidArgumentError(
        absl::StrCat("pipeline.cuts ends with ", options_.cuts.back().value(),
                     ", but the model has ", Counted(num_layers, "layer")));
  }
  return CheckScheduleSteps(options_.policy, joined.length);
}

absl::StatusOr<Decisions> CoordinatorImpl::Handle(const WorkerJoined& joined) {
  if (ended()) {
    return absl::FailedPreconditionError(
        absl::StrCat(WorkerLabel(joined.worker), " cannot join, the run is over: ", end_reason_));
  }
  SP_RETURN_IF_ERROR(CheckDescription(joined, options_.num_stages));
  if (const std::vector<WorkerId>& drained = orders_.drained;
      std::find(drained.begin(), drained.end(), joined.worker) != drained.end()) {
    return absl::FailedPreconditionError(
        absl::StrCat(WorkerLabel(joined.worker),
                     " was drained on an operator's order; give a new worker another id"));
  }
  SP_RETURN_IF_ERROR(CheckAgainstOptions(joined));
  SP_RETURN_IF_ERROR(CheckSameRunAsBefore(joined));
  if (const std::optional<Rank> rank = membership_.FindRank(joined.worker);
      state_ == RunState::kRunning && rank.has_value() && progress_[rank->value()].finished()) {
    SP_RETURN_IF_ERROR(membership_.CheckSame(joined));
    membership_.Replace(*rank, joined);  // it waits for the end of the run
    membership_.ShareLayers();
    return Decisions();
  }
  SP_ASSIGN_OR_RETURN(const bool repeated, membership_.CheckJoin(joined));
  if (repeated) return Decisions();
  Membership next = membership_;
  next.Add(joined);
  if (next.complete()) return Start(std::move(next));
  membership_.Add(joined);
  return Decisions();
}

// A generation goes on with what those before it have trained.
absl::Status CoordinatorImpl::CheckSameRunAsBefore(const WorkerJoined& joined) const {
  if (!has_started()) return absl::OkStatus();
  bool same = joined.length == length_ && joined.layers.size() == evidence_.layers.size();
  for (size_t i = 0; same && i < joined.layers.size(); ++i) {
    same = joined.layers[i].name == evidence_.layers[i].name;
  }
  if (same) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(WorkerLabel(joined.worker),
                   " has another model or another number of steps than the run had "
                   "before: go on with the same program, config and dataset"));
}

// Every member must have it, and no interval before it may lack a report: nobody runs it again.
absl::StatusOr<Step> CoordinatorImpl::FindCheckpoint(const Membership& complete) const {
  const std::vector<WorkerJoined>& members = complete.members();
  const auto everyone_has = [&members](Step step) {
    return step == Step(0) ||
           std::all_of(members.begin(), members.end(), [step](const WorkerJoined& member) {
             return std::binary_search(member.checkpoints.begin(), member.checkpoints.end(), step);
           });
  };
  const auto is_reported = [this](Step step) {
    return step.value() / length_.interval_steps <= evidence_.interval.value() + 1;
  };
  if (resume_step_.has_value()) {
    const Step step = *resume_step_;
    if (step <= Step(length_.num_steps) && everyone_has(step) && is_reported(step)) return step;
    return absl::FailedPreconditionError(
        absl::StrCat("the run cannot go on from step ", step.value(),
                     ": not all workers find a complete checkpoint of that step; `smartpipe "
                     "checkpoints` lists those that there are"));
  }
  const std::vector<Step>& steps = members.front().checkpoints;
  for (auto step = steps.rbegin(); step != steps.rend(); ++step) {
    if (*step <= Step(length_.num_steps) && everyone_has(*step) && is_reported(*step)) return *step;
  }
  return Step(0);
}

absl::StatusOr<Decisions> CoordinatorImpl::Start(Membership complete) {
  if (has_started()) {
    const absl::StatusOr<Step> step = FindCheckpoint(complete);
    if (step.ok()) return GoOnFrom(*step, std::move(complete));
    membership_ = std::move(complete);
    return Fail(std::string(step.status().message()));
  }
  Evidence evidence;
  evidence.layers = complete.MeanLayers();
  evidence.no_evidence.resize(evidence.layers.size());
  const RunLength& length = complete.members().front().length;
  const VerdictContext context{options_, *policy_, length};
  SP_ASSIGN_OR_RETURN(Verdict first, FirstVerdict(context, evidence, complete.ids()));

  length_ = length;
  membership_ = std::move(complete);
  membership_.ShareLayers();
  evidence_ = std::move(evidence);
  ++generation_;
  state_ = RunState::kRunning;
  is_resuming_ = false;
  resume_step_.reset();
  progress_.assign(options_.num_workers(), WorkerProgress());
  plan_ = first.plan;
  history_.first_step = Step(0);
  history_.start_plan = *plan_;
  Decisions decisions = {StartGeneration{generation_, membership_.ids(), *plan_, Step(0)}, first};
  verdicts_.Add(first);
  DecideReady(&decisions);
  return decisions;
}

absl::StatusOr<Decisions> CoordinatorImpl::GoOnFrom(Step step, Membership complete) {
  const IntervalIndex boundary = length_.boundary_at(step);
  Plan plan;
  SP_ASSIGN_OR_RETURN(Verdict in_force, VerdictAnew(context(), evidence_, verdicts_.at(boundary),
                                                    *plan_, complete.ids(), step, &plan));

  verdicts_.Add(in_force);
  membership_ = std::move(complete);
  membership_.ShareLayers();
  ++generation_;
  state_ = RunState::kRunning;
  history_.first_step = step;
  history_.start_plan = plan;
  if (std::exchange(is_resuming_, false)) history_.resumed_from = step;
  resume_step_.reset();
  num_proposals_ = 0;
  const IntervalIndex next_interval(step.value() / length_.interval_steps);
  progress_.assign(options_.num_workers(), {.next_interval = next_interval, .result = {}});
  next_to_learn_ = next_interval;
  plan_ = plan;
  Postpone(boundary, length_, &orders_);
  Decisions decisions = {StartGeneration{generation_, membership_.ids(), plan, step},
                         std::move(in_force)};
  DecideReady(&decisions);
  return decisions;
}

// ---- Reports ------------------------------------------------------------------------------------

absl::StatusOr<Rank> CoordinatorImpl::FindRank(const WorkerId& worker) const {
  if (const std::optional<Rank> rank = membership_.FindRank(worker)) return *rank;
  return absl::NotFoundError(
      absl::StrCat(WorkerLabel(worker), " is no member: ", membership_.Message()));
}

// Before FindRank: a member of the last generation may not know yet that it is over.
absl::Status CoordinatorImpl::CheckRunning() const {
  if (state_ != RunState::kWaiting) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("no generation is running: ", membership_.Message()));
}

absl::Status CoordinatorImpl::CheckGeneration(Generation generation) const {
  if (generation == generation_) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(
      "generation ", generation.value(), " is not valid, it is now ", generation_.value()));
}

absl::Status CoordinatorImpl::CheckNewReport(const IntervalReported& report, Rank rank) const {
  const IntervalIndex interval = report.interval, next = progress_[rank.value()].next_interval;
  if (interval < next) {  // not among the remembered ones
    return absl::FailedPreconditionError(
        absl::StrCat("interval ", interval.value(), " is decided, the next report is of interval ",
                     next.value()));
  }
  if (interval > next) {
    return absl::FailedPreconditionError(
        absl::StrCat("interval ", interval.value(),
                     " is out of order, the next report is of interval ", next.value()));
  }
  if (!length_.has_boundary(interval)) {
    return absl::FailedPreconditionError(absl::StrCat("the run has no interval ", interval.value(),
                                                      ", its last is ", interval.value() - 1));
  }
  if (interval.value() >= verdicts_.size()) {
    return absl::FailedPreconditionError(absl::StrCat(
        "interval ", interval.value(), " cannot be over, its boundary has no verdict yet"));
  }
  const PlanEpoch in_force = verdicts_.plan_epoch(interval);
  if (report.plan_epoch != in_force) {
    return absl::FailedPreconditionError(
        absl::StrCat("plan epoch ", report.plan_epoch.value(), " was not in force in interval ",
                     interval.value(), ", it was ", in_force.value()));
  }
  const int32_t num_layers = static_cast<int32_t>(evidence_.layers.size());
  return CheckReportContents(
      report, RankLayers(verdicts_.cuts(interval), num_layers, options_.num_workers(), rank),
      verdicts_.frontier(interval), evidence_.layers);
}

absl::StatusOr<Decisions> CoordinatorImpl::Handle(const IntervalReported& report) {
  if (ended()) {
    return absl::FailedPreconditionError(absl::StrCat("the run is over: ", end_reason_));
  }
  const std::string context =
      absl::StrCat(WorkerLabel(report.worker), ", interval ", report.interval.value());
  SP_RETURN_IF_ERROR(Annotate(CheckRunning(), context));
  SP_ASSIGN_OR_RETURN(const Rank rank, FindRank(report.worker));
  SP_RETURN_IF_ERROR(Annotate(CheckGeneration(report.generation), context));
  if (report.interval.value() < 0) {
    return Annotate(absl::InvalidArgumentError("the interval must be at least 0"), context);
  }
  const auto reports = reports_.find(report.interval);
  if (reports != reports_.end() && reports->second.count(rank) > 0) {
    if (SameReport(reports->second.at(rank), report)) return Decisions();
    return Annotate(absl::AlreadyExistsError("it was reported before, with other contents"),
                    context);
  }
  SP_RETURN_IF_ERROR(Annotate(CheckNewReport(report, rank), context));

  reports_[report.interval][rank] = report;
  ++progress_[rank.value()].next_interval;
  Decisions decisions;
  DecideReady(&decisions);
  return decisions;
}

std::optional<PolicyDecision> CoordinatorImpl::EarlierDecision(IntervalIndex boundary) const {
  if (boundary.value() >= verdicts_.num_decided()) return std::nullopt;
  return PolicyDecision{verdicts_.frontier(boundary), verdicts_.frontier_reason(boundary)};
}

bool CoordinatorImpl::DecideNext(Decisions* decisions) {
  const IntervalIndex boundary(verdicts_.size());
  if (!length_.has_boundary(boundary)) return false;
  if (orders_.paused_at.has_value() && boundary >= *orders_.paused_at) return false;
  if (StopBoundary().has_value()) return false;  // the generation ends there
  const std::optional<PolicyDecision> decided = EarlierDecision(boundary);
  const BoundaryOrders orders = CarryOut(boundary, decided.has_value(), options_.policy, &orders_);
  if (orders.policy.has_value()) {
    options_.policy = *orders.policy;
    policy_ = *MakePolicy(options_.policy);  // it was tried when the order came
  }
  Verdict verdict = NextVerdict(context(), evidence_, *plan_, boundary, decided, orders,
                                orders_.keep_trainable, &num_proposals_);
  verdicts_.Add(verdict);
  if (verdict.plan.has_value()) plan_ = verdict.plan;
  decisions->push_back(std::move(verdict));
  return true;
}

void CoordinatorImpl::DecideReady(Decisions* decisions) {
  // Boundary i+2 is decided with what interval i has taught, and nothing is learned before that.
  while (true) {
    const int64_t num_due = std::min(next_to_learn_.value() + 2, length_.num_boundaries());
    while (verdicts_.size() < num_due) {
      if (!DecideNext(decisions)) return;
    }
    const auto complete = reports_.find(next_to_learn_);
    if (complete == reports_.end() ||
        static_cast<int32_t>(complete->second.size()) < options_.num_workers()) {
      return;
    }
    std::vector<IntervalReported> reports;  // by rank
    for (const auto& [rank, report] : complete->second) reports.push_back(report);
    evidence_ = next_to_learn_ > evidence_.interval
                    ? Learn(std::move(evidence_), reports, options_.statistic)
                    : LearnCosts(std::move(evidence_), reports);
    reports_.erase(reports_.begin(), complete);
    ++next_to_learn_;
  }
}

// ---- Orders -------------------------------------------------------------------------------------

std::vector<WorkerId> CoordinatorImpl::NewestWorkers() const {
  std::vector<WorkerId> workers;
  if (!plan_.has_value()) return workers;
  for (int32_t rank = 0; rank < options_.num_workers() && rank < plan_->num_stages(); ++rank) {
    workers.push_back(plan_->placement[rank].front());
  }
  return workers;
}

OrderContext CoordinatorImpl::order_context() const {
  const IntervalIndex undecided(verdicts_.num_decided());
  return {.execution = options_,
          .policy = options_.policy,
          .length = length_,
          .next_boundary = IntervalIndex(verdicts_.size()),
          .next_undecided = undecided,
          .frontier = verdicts_.frontier(undecided - 1),
          .num_layers = static_cast<int32_t>(evidence_.layers.size()),
          .workers = NewestWorkers()};
}

absl::StatusOr<OrderRecord> CoordinatorImpl::TryOrder(const OrderGiven& given) const {
  if (ended()) {
    return WithReason(absl::FailedPreconditionError(absl::StrCat("the run is over: ", end_reason_)),
                      {"RUN_OVER", {}});
  }
  SP_RETURN_IF_ERROR(CheckRequestId(given, orders_));
  const auto* stop = std::get_if<StopRun>(&given.order);
  if (stop != nullptr && (stop->at_once || state_ == RunState::kWaiting)) {
    return OrderRecord{
        .given = given, .boundary = IntervalIndex(-1), .step = Step(-1), .done = true};
  }
  if (!has_started()) {
    return WithReason(absl::FailedPreconditionError(
                          absl::StrCat("the run has not started: ", membership_.Message())),
                      {"RUN_NOT_STARTED", {}});
  }
  return CheckOrder(given, order_context(), orders_);
}

absl::StatusOr<Decisions> CoordinatorImpl::Handle(const OrderGiven& given) {
  if (const OrderRecord* known = FindOrder(orders_, given.request_id);
      known != nullptr && known->given == given) {
    return Decisions();
  }
  SP_ASSIGN_OR_RETURN(const OrderRecord record, TryOrder(given));
  Decisions decisions;
  decisions.emplace_back(OrderAccepted{given.request_id, record.boundary, record.step});
  Accept(record, &orders_);
  if (std::holds_alternative<StopRun>(given.order) && record.done) {
    orders_.stop_why = WhyStopped(given);
    decisions.push_back(End(false, absl::StrCat("stopped on request: ", orders_.stop_why))[0]);
  } else if (state_ == RunState::kRunning) {
    DecideReady(&decisions);
  }
  return decisions;
}

absl::StatusOr<OrderPreview> CoordinatorImpl::Preview(const OrderGiven& given) const {
  SP_ASSIGN_OR_RETURN(const OrderRecord record, TryOrder(given));
  OrderPreview preview{.accepted = {given.request_id, record.boundary, record.step}, .verdict = {}};
  if (record.done || std::holds_alternative<PauseRun>(given.order) ||
      std::holds_alternative<ResumeRun>(given.order)) {
    return preview;
  }
  Orders orders = orders_;
  Accept(record, &orders);
  const std::optional<PolicyDecision> decided = EarlierDecision(record.boundary);
  const BoundaryOrders carried =
      CarryOut(record.boundary, decided.has_value(), options_.policy, &orders);
  CoordinatorOptions options = options_;
  if (carried.policy.has_value()) options.policy = *carried.policy;
  SP_ASSIGN_OR_RETURN(const std::unique_ptr<Policy> policy, MakePolicy(options.policy));
  int32_t num_proposals = num_proposals_;
  preview.verdict = NextVerdict({options, *policy, length_}, evidence_, *plan_, record.boundary,
                                decided, carried, orders.keep_trainable, &num_proposals);
  return preview;
}

void CoordinatorImpl::CompleteDrain(Decisions* decisions) {
  if (orders_.leaving.value().empty()) return;
  const WorkerId worker = std::exchange(orders_.leaving, WorkerId());
  orders_.drained.push_back(worker);
  static_cast<ExecutionOptions&>(options_) = AfterDrains(options_, 1);
  decisions->push_back(
      WorkerDrained{worker, absl::StrCat(WorkerLabel(worker), " was drained: the run goes on with ",
                                         Counted(options_.num_workers(), "worker"))});
}

// ---- Ends ---------------------------------------------------------------------------------------

// 'worker "w1" (stage 1, layers [4,7))', by the plan of the interval that it is in.
std::string CoordinatorImpl::MemberLabel(Rank rank) const {
  const IntervalIndex boundary = std::min(progress_[rank.value()].next_interval, verdicts_.last());
  std::vector<std::string> stages;
  for (int32_t s = rank.value(); s < options_.num_stages; s += options_.num_workers()) {
    const LayerRange layers = StageLayers(
        verdicts_.cuts(boundary), static_cast<int32_t>(evidence_.layers.size()), StageIndex(s));
    stages.push_back(absl::StrCat("stage ", s, ", layers [", layers.first_layer.value(), ",",
                                  layers.end_layer.value(), ")"));
  }
  return absl::StrCat(WorkerLabel(membership_.members()[rank.value()].worker), " (",
                      absl::StrJoin(stages, "; "), ")");
}

void CoordinatorImpl::LeaveGeneration() {
  membership_ = Membership(options_.num_workers());
  progress_.clear();
  reports_.clear();
  state_ = RunState::kWaiting;
}

Decisions CoordinatorImpl::BreakGeneration(std::string reason) {
  if (!options_.recovery.enabled) return Fail(std::move(reason));
  if (!orders_.stop_why.empty()) {
    return Fail(absl::StrCat("stopped on request: ", orders_.stop_why,
                             "; it has no checkpoint of the step at which it should have "
                             "stopped, since ",
                             reason));
  }
  std::vector<int64_t>& times_us = history_.restart_times_us;
  const int64_t now_us = absl::ToUnixMicros(now_);
  const int64_t oldest_us = now_us - absl::ToInt64Microseconds(kRestartWindow);
  std::erase_if(times_us, [oldest_us](int64_t time_us) { return time_us < oldest_us; });
  if (static_cast<int32_t>(times_us.size()) >= options_.recovery.max_restarts) {
    return Fail(absl::StrCat(reason, "; within an hour the run has been restarted ",
                             Counted(times_us.size(), "time"),
                             ", as often as recovery.max_restarts allows"));
  }
  times_us.push_back(now_us);
  ++history_.num_recoveries;
  history_.last_fault = reason;
  Decisions decisions;
  CompleteDrain(&decisions);
  LeaveGeneration();
  decisions.push_back(EndGeneration{generation_, std::move(reason)});
  return decisions;
}

std::optional<IntervalIndex> CoordinatorImpl::StopBoundary() const {
  if (verdicts_.empty() || !verdicts_.stops(verdicts_.last())) return std::nullopt;
  return verdicts_.last();
}

Decisions CoordinatorImpl::End(bool success, std::string reason) {
  state_ = success ? RunState::kFinished : RunState::kFailed;
  end_reason_ = std::move(reason);
  return {EndRun{success, end_reason_}};
}

absl::StatusOr<Decisions> CoordinatorImpl::Handle(const WorkerLost& lost) {
  if (ended()) return Decisions();
  SP_ASSIGN_OR_RETURN(const Rank rank, FindRank(lost.worker));
  if (membership_.members()[rank.value()].incarnation != lost.incarnation) {
    return absl::NotFoundError(absl::StrCat(
        WorkerLabel(lost.worker), " was lost, but another process with this id is the member"));
  }
  if (state_ == RunState::kWaiting) {
    membership_.Remove(rank);
    return Decisions();
  }
  if (progress_[rank.value()].finished()) return Decisions();
  return BreakGeneration(absl::StrCat(MemberLabel(rank), " was lost: ", lost.how));
}

absl::StatusOr<Decisions> CoordinatorImpl::Handle(const FaultReported& fault) {
  if (ended()) return Decisions();
  SP_RETURN_IF_ERROR(Annotate(
      CheckRunning(),
      absl::StrCat(WorkerLabel(fault.worker), ", fault of generation ", fault.generation.value())));
  SP_ASSIGN_OR_RETURN(const Rank rank, FindRank(fault.worker));
  SP_RETURN_IF_ERROR(Annotate(CheckGeneration(fault.generation), WorkerLabel(fault.worker)));
  return BreakGeneration(absl::StrCat(MemberLabel(rank), " cannot go on: ", fault.message));
}

absl::StatusOr<Decisions> CoordinatorImpl::Handle(const WorkerFailed& failed) {
  if (ended()) return Decisions();
  SP_ASSIGN_OR_RETURN(const Rank rank, FindRank(failed.worker));
  SP_RETURN_IF_ERROR(Annotate(CheckGeneration(failed.generation), WorkerLabel(failed.worker)));
  if (state_ == RunState::kWaiting) {
    membership_.Remove(rank);
    return Decisions();
  }
  if (progress_[rank.value()].finished()) return Decisions();
  return Fail(absl::StrCat(MemberLabel(rank), " failed: ", failed.message));
}

absl::StatusOr<Decisions> CoordinatorImpl::Handle(const WorkerFinished& finished) {
  if (ended()) return Decisions();
  SP_RETURN_IF_ERROR(Annotate(CheckRunning(),
                              absl::StrCat(WorkerLabel(finished.worker), " cannot have finished")));
  SP_ASSIGN_OR_RETURN(const Rank rank, FindRank(finished.worker));
  SP_RETURN_IF_ERROR(Annotate(CheckGeneration(finished.generation), WorkerLabel(finished.worker)));
  // No worker enters an interval without the verdict at its start.
  const IntervalIndex undecided(verdicts_.size());
  const std::optional<IntervalIndex> stop = StopBoundary();
  if (length_.has_boundary(undecided) && !stop.has_value()) {
    return absl::FailedPreconditionError(
        absl::StrCat(WorkerLabel(finished.worker), " cannot have finished, boundary ",
                     undecided.value(), " of the run has no verdict yet"));
  }
  progress_[rank.value()].result = finished.result;
  const bool all = std::all_of(progress_.begin(), progress_.end(),
                               [](const WorkerProgress& progress) { return progress.finished(); });
  if (!all) return Decisions();
  if (stop.has_value() && orders_.stop_why.empty()) {  // a worker leaves
    Decisions decisions;
    std::string reason =
        absl::StrCat(WorkerLabel(orders_.leaving), " leaves on an operator's order");
    CompleteDrain(&decisions);
    LeaveGeneration();
    decisions.push_back(EndGeneration{generation_, std::move(reason)});
    return decisions;
  }
  if (stop.has_value()) {
    return End(false, absl::StrCat("stopped on request at step ", verdicts_.step(*stop).value(),
                                   ", behind a checkpoint: ", orders_.stop_why));
  }
  if (options_.num_workers() == 1) return End(true, "the worker finished");
  return End(true, absl::StrCat("all ", options_.num_workers(), " workers finished"));
}

absl::StatusOr<Decisions> CoordinatorImpl::Handle(const RunResumed& resumed) {
  SP_RETURN_IF_ERROR(CheckExecution(resumed.execution));
  if (resumed.step.has_value() && *resumed.step < Step(0)) {
    return absl::InvalidArgumentError(
        absl::StrCat("a run cannot go on from step ", resumed.step->value()));
  }
  static_cast<ExecutionOptions&>(options_) = resumed.execution;
  LeaveGeneration();
  end_reason_.clear();
  // Whoever resumes a run wants it to go on; what else was ordered stands.
  for (OrderRecord& record : orders_.records) {
    const Order& order = record.given.order;
    record.done |= std::holds_alternative<PauseRun>(order) ||
                   std::holds_alternative<StopRun>(order) ||
                   std::holds_alternative<DrainWorker>(order);
  }
  orders_.paused_at.reset();
  orders_.stop_why.clear();
  orders_.leaving = WorkerId();
  orders_.drained.clear();
  history_.restart_times_us.clear();
  is_resuming_ = true;
  resume_step_ = resumed.step;
  return Decisions();
}

// ---- Views --------------------------------------------------------------------------------------

std::string CoordinatorImpl::state_message() const {
  if (state_ == RunState::kWaiting) return membership_.Message();
  if (ended()) return end_reason_;
  if (const std::optional<IntervalIndex> stop = StopBoundary()) {
    return absl::StrCat("stops at step ", verdicts_.step(*stop).value(), ": ",
                        orders_.leaving.value().empty()
                            ? orders_.stop_why
                            : absl::StrCat(WorkerLabel(orders_.leaving), " leaves"));
  }
  if (orders_.paused_at.has_value()) {
    const auto pause =
        std::find_if(orders_.records.begin(), orders_.records.end(), [](const OrderRecord& record) {
          return !record.done && std::holds_alternative<PauseRun>(record.given.order);
        });
    return absl::StrCat("paused from step ", length_.step_of(*orders_.paused_at).value(), " on, ",
                        WhoAndWhy(pause->given));
  }
  return absl::StrCat(Counted(options_.num_workers(), "worker"),
                      options_.num_workers() == 1 ? " trains " : " train ",
                      Counted(evidence_.layers.size(), "layer"));
}

double CoordinatorImpl::SpeedupLimitOfRun() const {
  if (verdicts_.empty()) return 1;
  std::vector<LayerCost> costs;
  for (const LayerInfo& layer : evidence_.layers) costs.push_back(layer.cost);
  // Work with freezing, in steps of an unfrozen run; the newest frontier is taken to stay until the
  // end.
  double work_steps = 0;
  double limit = 1;
  for (IntervalIndex b(0); b.value() < verdicts_.size(); ++b) {
    const int64_t end = b < verdicts_.last() ? verdicts_.step(b + 1).value() : length().num_steps;
    if (b.value() == 0 || verdicts_.frontier(b) != verdicts_.frontier(b - 1)) {
      limit = SpeedupLimit(costs, verdicts_.frontier(b));
      if (!std::isfinite(limit) || limit < 1) limit = 1;  // costs of zero
    }
    work_steps += static_cast<double>(end - verdicts_.step(b).value()) / limit;
  }
  return static_cast<double>(length().num_steps) / work_steps;
}

std::string CoordinatorImpl::Dump() const {
  const int32_t num_layers = static_cast<int32_t>(evidence_.layers.size());
  std::string text =
      absl::StrCat(StateName(state_), ", generation ", generation_.value(), ": ", state_message(),
                   "\nsteps ", length().num_steps, ", per epoch ", length().steps_per_epoch,
                   ", per interval ", length().interval_steps, "\n", Describe(options_), "\n",
                   Describe(history_), "\n", Describe(orders_));
  if (is_resuming_) {
    absl::StrAppend(&text, "resumed",
                    resume_step_ ? absl::StrCat(" from step ", resume_step_->value()) : "", "\n");
  }
  for (const WorkerJoined& member : membership_.members()) {
    absl::StrAppend(&text, "member ", member.worker.value(), ", incarnation ", member.incarnation,
                    ", checkpoints ",
                    absl::StrJoin(member.checkpoints, " ", absl::StreamFormatter()), "\n");
    for (const LayerInfo& layer : member.layers)
      absl::StrAppend(&text, "  ", Describe(layer), "\n");
  }
  for (size_t rank = 0; rank < progress_.size(); ++rank) {
    absl::StrAppend(&text, "rank ", rank, ": next interval ",
                    progress_[rank].next_interval.value());
    if (progress_[rank].finished()) absl::StrAppend(&text, ", ", Describe(*progress_[rank].result));
    absl::StrAppend(&text, "\n");
  }
  if (plan_.has_value()) absl::StrAppend(&text, "plan ", Describe(*plan_, num_layers), "\n");
  for (IntervalIndex b(0); b.value() < verdicts_.num_decided(); ++b) {
    absl::StrAppend(&text, b.value() < verdicts_.size() ? "" : "earlier: ",
                    Describe(verdicts_.at(b), num_layers), "\n");
  }
  absl::StrAppend(&text, "evidence of interval ", evidence_.interval.value(), ", drain ",
                  Exact(evidence_.drain_s), " s, ", Exact(evidence_.bytes_per_s), " bytes/s, link ",
                  Exact(evidence_.link_latency_s), " s, ", Exact(evidence_.link_bytes_per_s),
                  " bytes/s, ", Counted(num_proposals_, "proposal"), "\n");
  for (const LayerInfo& layer : evidence_.layers) {
    absl::StrAppend(&text, "  ", Describe(layer), "\n");
  }
  for (const std::vector<double>& etas : evidence_.eta_history) {
    absl::StrAppend(
        &text, "  eta ",
        absl::StrJoin(etas, " ", [](std::string* out, double value) { out->append(Exact(value)); }),
        "\n");
  }
  for (const std::string& why : evidence_.no_evidence) absl::StrAppend(&text, "  ", why, "\n");
  for (const auto& [interval, reports] : reports_) {
    for (const auto& [rank, report] : reports) absl::StrAppend(&text, Describe(report), "\n");
  }
  return text;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Coordinator>> Coordinator::Create(
    const CoordinatorOptions& options) {
  SP_RETURN_IF_ERROR(CheckOptions(options));
  SP_ASSIGN_OR_RETURN(std::unique_ptr<Policy> policy, MakePolicy(options.policy));
  return std::make_unique<CoordinatorImpl>(options, std::move(policy));
}

absl::StatusOr<std::unique_ptr<Coordinator>> Coordinator::Restore(const CoordinatorOptions& options,
                                                                  CoordinatorState snapshot,
                                                                  VerdictHistory verdicts) {
  SP_RETURN_IF_ERROR(CheckOptions(options));
  SP_ASSIGN_OR_RETURN(std::unique_ptr<Policy> policy, MakePolicy(options.policy));
  auto coordinator = std::make_unique<CoordinatorImpl>(options, std::move(policy));
  SP_RETURN_IF_ERROR(coordinator->GoOn(std::move(snapshot), std::move(verdicts)));
  return coordinator;
}

}  // namespace smartpipe
