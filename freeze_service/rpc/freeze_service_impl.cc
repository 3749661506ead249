// Membership, events and streams; the plain calls are in calls.cc.
#include "freeze_service/rpc/freeze_service_impl.h"

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>
#include <variant>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "freeze_service/core/decision_text.h"
#include "freeze_service/core/orders.h"
#include "freeze_service/rpc/codec.h"
#include "freeze_service/store/cost_file.h"
#include "services/base/files.h"
#include "services/base/limits.h"
#include "services/base/status_macros.h"
#include "services/obs/log.h"
#include "services/rpc/plan_proto.h"
#include "services/rpc/status.h"

namespace smartpipe {
namespace {

// A restart decides again what the records of at most these many intervals decided.
constexpr int64_t kSnapshotIntervals = 32;
constexpr absl::Duration kCostsPeriod = absl::Seconds(1);

v1::JoinResponse VerdictForWorkers(const Verdict& verdict) {
  v1::JoinResponse message;
  *message.mutable_verdict() = EncodeVerdict(verdict);
  message.mutable_verdict()->clear_eta();  // most of the bytes, and no worker looks at it
  return message;
}

}  // namespace

absl::StatusOr<std::unique_ptr<FreezeServiceImpl>> FreezeServiceImpl::Create(
    const Options& options, std::unique_ptr<Coordinator> coordinator,
    std::unique_ptr<DecisionStore> store, const Clock* clock) {
  SP_ASSIGN_OR_RETURN(std::unique_ptr<ProgressLog> progress,
                      ProgressLog::Create(options.metrics_path, options.batch_size));
  std::unique_ptr<FreezeServiceImpl> service(new FreezeServiceImpl(
      options, std::move(coordinator), std::move(store), std::move(progress), clock));
  absl::MutexLock lock(&service->mutex_);
  SP_RETURN_IF_ERROR(service->GoOn());
  return service;
}

FreezeServiceImpl::FreezeServiceImpl(Options options, std::unique_ptr<Coordinator> coordinator,
                                     std::unique_ptr<DecisionStore> store,
                                     std::unique_ptr<ProgressLog> progress, const Clock* clock)
    : options_(std::move(options)),
      clock_(clock),
      watchers_(clock),
      coordinator_(std::move(coordinator)),
      store_(std::move(store)),
      progress_(std::move(progress)),
      reports_([this](std::vector<WaitingReport> reports) { TakeReports(std::move(reports)); }) {}

void FreezeServiceImpl::Leave() {
  absl::MutexLock lock(&mutex_);
  leaving_ = true;
}

void FreezeServiceImpl::CheckMembers() {
  absl::MutexLock lock(&mutex_);
  while (!absent_.empty() && !end_ && clock_->Now() >= absent_until_) {
    const auto [worker, incarnation] = *absent_.begin();
    absent_.erase(absent_.begin());
    Lose(worker, incarnation, "it did not come back after the freeze service was started again");
  }
}

bool FreezeServiceImpl::ended() const {
  absl::MutexLock lock(&mutex_);
  return end_.has_value();
}

absl::Status FreezeServiceImpl::failure() const {
  absl::MutexLock lock(&mutex_);
  return failure_;
}

absl::Status FreezeServiceImpl::GoOn() {
  const CoordinatorState state = coordinator_->Snapshot();
  const bool is_recorded = store_->num_records() > 0;
  if (is_recorded) {
    LogInfo("goes on behind ", store_->num_records(), " records: ", coordinator_->state_message());
  }
  num_published_ = coordinator_->verdicts().size();
  if ((options_.resume && is_recorded) ||
      coordinator_->execution() !=
          AfterDrains(options_.resumption.execution, coordinator_->orders().drained.size())) {
    return ApplyEvent(options_.resumption);
  }
  switch (state.run_state) {
    case RunState::kWaiting:
      // Nothing depends on them yet, and nobody knows whether they are there still.
      for (const WorkerJoined& member : state.members) {
        SP_RETURN_IF_ERROR(ApplyEvent(WorkerLost{.worker = member.worker,
                                                 .incarnation = member.incarnation,
                                                 .how = "the service was started again"}));
      }
      return absl::OkStatus();
    case RunState::kRunning:
      keys_.Open(state.generation);
      absent_until_ = clock_->Now() + options_.rejoin_patience;
      break;
    case RunState::kFinished:
    case RunState::kFailed:
      end_ = EndRun{.success = state.run_state == RunState::kFinished, .reason = state.end_reason};
      keys_.Close(absl::StrCat("the run is over: ", end_->reason));
      LogInfo("the run is over",
              end_->success ? "" : "; --resume auto goes on from its newest checkpoint");
      break;
  }
  for (size_t rank = 0; rank < state.members.size(); ++rank) {
    const WorkerJoined& member = state.members[rank];
    ranks_.push_back(member.worker);
    if (rank < state.progress.size() && state.progress[rank].finished()) {
      ended_workers_[member.worker] =
          EncodeEndWorker({member.worker, state.generation, *state.progress[rank].result});
    } else if (!end_) {
      absent_[member.worker] = member.incarnation;
    }
  }
  if (end_) LogWeights();
  return absl::OkStatus();
}

// ---- Events -------------------------------------------------------------------------------------

bool FreezeServiceImpl::IsStopped() const {
  return end_ && !end_->success && failure_.ok() && !coordinator_->orders().stop_why.empty();
}

bool FreezeServiceImpl::HasFailed() const {
  return end_ && !end_->success && failure_.ok() && !IsStopped();
}

v1::JoinResponse FreezeServiceImpl::EndMessage() const {
  v1::JoinResponse message;
  message.mutable_end_of_run()->set_success(end_->success);
  message.mutable_end_of_run()->set_reason(end_->reason);
  message.mutable_end_of_run()->set_stopped(IsStopped());
  message.mutable_end_of_run()->set_failed(HasFailed());
  return message;
}

absl::Status FreezeServiceImpl::CheckNotEnded() const {
  if (!end_) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat("the run is over: ", end_->reason));
}

absl::Status FreezeServiceImpl::ApplyEvent(const Event& event) {
  std::vector<EventRecord> records;
  std::optional<StoredSnapshot> snapshot;
  SP_RETURN_IF_ERROR(Apply(event, &records, &snapshot));
  SP_RETURN_IF_ERROR(Store(records, snapshot));
  PublishAll(records);
  return absl::OkStatus();
}

void FreezeServiceImpl::TakeReports(std::vector<WaitingReport> reports) {
  std::vector<absl::Status> answers;
  absl::MutexLock lock(&mutex_);
  std::vector<EventRecord> records;
  std::optional<StoredSnapshot> snapshot;
  for (const WaitingReport& waiting : reports) {
    const IntervalReported& report = waiting.report;
    absl::Status status = CheckRate(report.worker);
    if (status.ok()) status = Apply(report, &records, &snapshot);
    if (status.ok()) {
      last_reports_[report.worker] = {report.interval, report.step_s, report.verdict_wait_s};
    }
    answers.push_back(std::move(status));
  }
  const absl::Status stored = Store(records, snapshot);
  // Before the verdict goes to everyone, which takes longer.
  for (size_t i = 0; i < reports.size(); ++i) {
    answers[i].Update(stored);
    reports[i].answer(answers[i]);
  }
  if (stored.ok()) PublishAll(records);
}

absl::Status FreezeServiceImpl::Apply(const Event& event, std::vector<EventRecord>* records,
                                      std::optional<StoredSnapshot>* snapshot) {
  SP_RETURN_IF_ERROR(CheckNotEnded());
  const absl::Time now = clock_->Now();
  SP_ASSIGN_OR_RETURN(std::vector<Decision> decisions, coordinator_->Apply(event, now));
  const int64_t sequence = store_->num_records() + static_cast<int64_t>(records->size());
  records->push_back({sequence, now, event, std::move(decisions)});
  const int64_t num_records = sequence + 1;
  if (num_records % (kSnapshotIntervals * coordinator_->execution().num_workers()) == 0) {
    *snapshot = StoredSnapshot{num_records, coordinator_->Snapshot()};
  }
  return absl::OkStatus();
}

absl::Status FreezeServiceImpl::Store(absl::Span<const EventRecord> records,
                                      const std::optional<StoredSnapshot>& snapshot) {
  if (records.empty()) return absl::OkStatus();
  Reach(FaultPoint::kBeforeAppend, records);
  const absl::Status stored = store_->Append(records, snapshot.has_value() ? &*snapshot : nullptr);
  Reach(FaultPoint::kAfterAppend, records);
  if (stored.ok()) return stored;
  failure_ = Annotate(stored, "the freeze service stops because it cannot record its decisions");
  Publish(EndRun{.success = false, .reason = std::string(failure_.message())});
  return CheckNotEnded();
}

void FreezeServiceImpl::PublishAll(absl::Span<const EventRecord> records) {
  if (records.empty()) return;
  bool has_decided = false;
  for (const EventRecord& record : records) {
    for (const Decision& decision : record.decisions) {
      std::visit([this](const auto& order) ABSL_NO_THREAD_SAFETY_ANALYSIS { Publish(order); },
                 decision);
      has_decided = true;
    }
  }
  Reach(FaultPoint::kAfterPublish, records);
  SendWaiting();
  if (has_decided) WriteCosts();
}

void FreezeServiceImpl::Reach(FaultPoint point, absl::Span<const EventRecord> records) const {
  if (!options_.fault_hook) return;
  for (const EventRecord& record : records) options_.fault_hook(point, record.sequence);
}

void FreezeServiceImpl::WriteCosts() {
  if (options_.costs_path.empty() || !coordinator_->plan()) return;
  const absl::Time now = clock_->Now();
  if (!end_ && now < costs_written_ + kCostsPeriod) return;
  costs_written_ = now;
  const absl::Status written = WriteFileAtomically(
      options_.costs_path,
      CostFileJson(coordinator_->evidence().layers, coordinator_->planner_input()));
  if (!written.ok() && !costs_failed_) {
    LogWarning("the costs are not written: ", written.message(), "; the run goes on without them");
  }
  costs_failed_ = !written.ok();
}

void FreezeServiceImpl::Tell(LogLevel level, const std::string& text) {
  Log(level, text);
  watchers_.TellNotice(text);
}

void FreezeServiceImpl::SendToAll(const v1::JoinResponse& message) {
  const grpc::ByteBuffer encoded = EncodeMessage(message);
  for (const auto& [worker, member] : members_) member.stream->Send(encoded);
}

void FreezeServiceImpl::Publish(const StartGeneration& start) {
  ranks_ = start.members;
  last_reports_.clear();
  keys_.Open(start.generation);
  const std::string text = absl::StrCat(
      "generation ", start.generation.value(),
      ": all workers are there: ", absl::StrJoin(ranks_, ", ", absl::StreamFormatter()),
      "; from step ", start.step.value(), " with ",
      FormatCuts(start.plan.cuts, static_cast<int32_t>(coordinator_->evidence().layers.size())));
  Tell(LogLevel::kInfo, text);
  for (size_t rank = 0; rank < ranks_.size(); ++rank) {
    auto member = members_.find(ranks_[rank]);
    if (member == members_.end()) continue;  // its loss is on its way
    SendAssignment(*member->second.stream, Rank(static_cast<int32_t>(rank)));
  }
}

void FreezeServiceImpl::SendAssignment(JoinStream& stream, Rank rank) {
  const RunHistory& history = coordinator_->history();
  v1::JoinResponse message;
  v1::Assignment& assignment = *message.mutable_assignment();
  assignment.set_generation(coordinator_->generation().value());
  assignment.set_rank(rank.value());
  *assignment.mutable_plan() = ToProto(history.start_plan);
  for (const WorkerId& worker : ranks_) assignment.add_members(worker.value());
  assignment.set_first_step(history.first_step.value());
  assignment.set_first_boundary(coordinator_->length().boundary_at(history.first_step).value());
  stream.Send(message);
}

void FreezeServiceImpl::WriteDump(const EndGeneration& end) {
  const std::string folder = options_.run_dir + "/dumps";
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  const absl::Status written = WriteFileAtomically(
      absl::StrCat(folder, "/freeze_service-generation-", end.generation.value(), ".txt"),
      absl::StrCat(end.reason, "\n\n", coordinator_->Dump()));
  if (!written.ok()) LogWarning("no dump is written: ", written.message());
}

void FreezeServiceImpl::Publish(const EndGeneration& end) {
  Tell(LogLevel::kWarning,
       absl::StrCat("generation ", end.generation.value(), " ends: ", end.reason));
  // The workers write theirs when they hear of it.
  if (absl::StrContains(end.reason, "watchdog: ")) WriteDump(end);
  keys_.Close(absl::StrCat("generation ", end.generation.value(), " ended: ", end.reason));
  ended_workers_.clear();
  absent_.clear();
  waiting_message_.clear();
  v1::JoinResponse message;
  message.mutable_end_of_generation()->set_generation(end.generation.value());
  message.mutable_end_of_generation()->set_reason(end.reason);
  SendToAll(message);
  for (auto& [worker, member] : members_) member.announced = false;
}

void FreezeServiceImpl::Publish(const Verdict& verdict) {
  num_published_ = verdict.boundary.value() + 1;
  LogInfo("boundary ", verdict.boundary.value(), " (step ", verdict.step.value(),
          "): ", verdict.plan ? absl::StrCat("plan ", verdict.plan_epoch.value()) : "keep",
          ", frontier ", verdict.frontier.value(), ": ", verdict.reason);
  SendToAll(VerdictForWorkers(verdict));
  v1::WatchRunResponse told;
  *told.mutable_verdict() = EncodeVerdict(verdict);
  watchers_.Tell(told);
}

void FreezeServiceImpl::Publish(const OrderAccepted& accepted) {
  const OrderRecord* record = FindOrder(coordinator_->orders(), accepted.request_id);
  if (record == nullptr) return;
  LogInfo("order ", Describe(record->given),
          accepted.boundary.value() < 0
              ? ""
              : absl::StrCat("; it is carried out at step ", accepted.step.value()));
  v1::WatchRunResponse told;
  *told.mutable_order() = EncodeOrder(*record);
  watchers_.Tell(told);
}

void FreezeServiceImpl::Publish(const WorkerDrained& drained) {
  Tell(LogLevel::kInfo, drained.reason);
  const auto member = members_.find(drained.worker);
  if (member == members_.end()) return;
  v1::JoinResponse message;
  if (!ended_workers_.contains(drained.worker)) {
    // It is in the middle of a generation: what it waits for will never come.
    message.mutable_end_of_generation()->set_generation(coordinator_->generation().value());
    message.mutable_end_of_generation()->set_reason(drained.reason);
    member->second.stream->Send(message);
  }
  message.mutable_end_of_run()->set_success(true);
  message.mutable_end_of_run()->set_reason(drained.reason);
  member->second.stream->Send(message);
  member->second.stream->Close(grpc::Status::OK);
  members_.erase(member);
}

void FreezeServiceImpl::Publish(const EndRun& end) {
  end_ = end;
  Log(end.success || IsStopped() ? LogLevel::kInfo : LogLevel::kError,
      absl::StrCat("the run ended: ", end.reason));
  LogWeights();
  keys_.Close(absl::StrCat("the run is over: ", end.reason));
  const v1::JoinResponse message = EndMessage();
  SendToAll(message);
  watchers_.TellEnd(message.end_of_run());
  for (const auto& [worker, member] : members_) member.stream->Close(grpc::Status::OK);
  members_.clear();
}

// Where nothing but logs comes out of a cluster, this is the run's result.
void FreezeServiceImpl::LogWeights() const {
  for (const auto& [worker, ended] : ended_workers_) {
    if (!ended.weights_sha256().empty()) LogInfo("weights_sha256 ", ended.weights_sha256());
  }
}

bool FreezeServiceImpl::IsHeld() const {
  const std::optional<IntervalIndex>& paused_at = coordinator_->orders().paused_at;
  return !end_ && coordinator_->state() == RunState::kRunning && paused_at.has_value() &&
         num_published() >= paused_at->value();
}

void FreezeServiceImpl::SendWaiting() {
  if (end_ || (coordinator_->state() != RunState::kWaiting && !IsHeld())) {
    waiting_message_.clear();
    return;
  }
  const std::string text = coordinator_->state_message();
  if (text == waiting_message_) return;
  waiting_message_ = text;
  LogInfo(text);
  v1::JoinResponse message;
  message.mutable_waiting()->set_message(text);
  SendToAll(message);
}

// ---- Membership ---------------------------------------------------------------------------------

grpc::ServerWriteReactor<grpc::ByteBuffer>* FreezeServiceImpl::Join(grpc::CallbackServerContext*,
                                                                    const grpc::ByteBuffer* bytes) {
  v1::JoinRequest request;
  const grpc::Status decoded = DecodeMessage(*bytes, &request);
  std::shared_ptr<JoinStream> stream =
      JoinStream::Create(WorkerId(request.worker_id()), request.incarnation(),
                         [this](JoinStream& broken) { OnStreamBroken(broken); });
  if (!decoded.ok()) {
    stream->Close(decoded);
    return stream.get();  // it owns itself until gRPC is done with it
  }
  absl::MutexLock lock(&mutex_);
  const absl::Status status = AddStream(stream, request);
  if (absl::IsFailedPrecondition(status) && end_ && failure_.ok()) {
    // A worker that comes behind the end has nothing to do, which is no error of its own.
    stream->Send(EndMessage());
    stream->Close(grpc::Status::OK);
  } else if (!status.ok()) {
    stream->Close(ToGrpcStatus(status));
  }
  return stream.get();
}

absl::Status FreezeServiceImpl::MakeRoom(const WorkerId& worker, int64_t incarnation) {
  if (auto open = members_.find(worker); open != members_.end()) {
    if (open->second.stream->incarnation() != incarnation) {
      return absl::AlreadyExistsError(
          absl::StrCat("a worker with the id ", worker.value(),
                       " is connected already; give each worker an id of its own"));
    }
    open->second.stream->Close(
        ToGrpcStatus(absl::AbortedError("the worker has opened another stream")));
    members_.erase(open);
  }
  const std::optional<int64_t> known = coordinator_->MemberIncarnation(worker);
  if (!known || *known == incarnation || ended_workers_.contains(worker)) return absl::OkStatus();
  Lose(worker, *known, "another process has taken its place");
  return CheckNotEnded();
}

absl::Status FreezeServiceImpl::AddStream(const std::shared_ptr<JoinStream>& stream,
                                          const v1::JoinRequest& request) {
  SP_RETURN_IF_ERROR(CheckJoin(request));
  SP_RETURN_IF_ERROR(CheckNotEnded());
  const WorkerId& worker = stream->worker();
  const auto place = std::find(ranks_.begin(), ranks_.end(), worker);
  if (coordinator_->state() == RunState::kRunning && place == ranks_.end()) {
    return absl::FailedPreconditionError(absl::StrCat(
        "the run has its workers (", absl::StrJoin(ranks_, ", ", absl::StreamFormatter()),
        "); it takes no others while they live"));
  }
  SP_RETURN_IF_ERROR(MakeRoom(worker, request.incarnation()));
  if (members_.size() >= static_cast<size_t>(limits::kWorkersMax)) {
    return absl::ResourceExhaustedError(
        absl::StrCat(limits::kWorkersMax, " workers are connected; that is the limit"));
  }
  const bool is_running = coordinator_->state() == RunState::kRunning;
  const bool has_joined = coordinator_->MemberIncarnation(worker) == request.incarnation();
  members_[worker] = {.stream = stream, .address = request.address(), .announced = has_joined};
  absent_.erase(worker);
  if (!is_running) ended_workers_.erase(worker);
  const std::string text =
      absl::StrCat("worker ", request.worker_id(),
                   request.rejoin() ? " is back from " : " connected from ", request.address());
  Tell(LogLevel::kInfo, text);
  v1::JoinResponse message;
  message.mutable_welcome()->set_run_id(options_.run_id);
  message.mutable_welcome()->set_config_toml(options_.config_toml);
  message.mutable_welcome()->set_run_dir(options_.run_dir);
  message.mutable_welcome()->set_num_cores(options_.num_cores);
  message.mutable_welcome()->set_parameter_service(options_.parameter_service);
  stream->Send(message);
  if (is_running && has_joined && !ended_workers_.contains(worker)) {
    SendGeneration(*stream, Rank(static_cast<int32_t>(place - ranks_.begin())), request);
    return absl::OkStatus();
  }
  v1::JoinResponse more;
  if (request.rejoin() && !has_joined) {
    more.mutable_end_of_generation()->set_generation(request.generation());
    more.mutable_end_of_generation()->set_reason(coordinator_->history().last_fault.empty()
                                                     ? "the freeze service was started again"
                                                     : coordinator_->history().last_fault);
  } else {
    more.mutable_waiting()->set_message(coordinator_->state_message());
  }
  stream->Send(more);
  return absl::OkStatus();
}

void FreezeServiceImpl::SendGeneration(JoinStream& stream, Rank rank,
                                       const v1::JoinRequest& request) {
  const RunLength& length = coordinator_->length();
  int64_t next = coordinator_->history().first_step.value() / length.interval_steps;
  if (request.generation() == coordinator_->generation().value()) {
    next = std::max(next, request.next_boundary());
  } else {
    SendAssignment(stream, rank);
  }
  for (; next < num_published(); ++next) {
    stream.Send(VerdictForWorkers(coordinator_->verdicts().at(IntervalIndex(next))));
  }
  if (!IsHeld()) return;
  v1::JoinResponse message;
  message.mutable_waiting()->set_message(coordinator_->state_message());
  stream.Send(message);
}

void FreezeServiceImpl::Lose(const WorkerId& worker, int64_t incarnation, const std::string& how) {
  const absl::Status status =
      ApplyEvent(WorkerLost{.worker = worker, .incarnation = incarnation, .how = how});
  if (!status.ok())
    LogError("the loss of worker ", worker.value(), " was refused: ", status.message());
}

void FreezeServiceImpl::OnStreamBroken(JoinStream& stream) {
  absl::MutexLock lock(&mutex_);
  auto found = members_.find(stream.worker());
  if (found == members_.end() || found->second.stream.get() != &stream) return;
  const bool announced = found->second.announced;
  members_.erase(found);
  if (end_ || leaving_ || ended_workers_.contains(stream.worker())) return;
  const std::string text =
      absl::StrCat("worker ", stream.worker().value(), " is lost: its connection broke");
  Tell(LogLevel::kWarning, text);
  if (announced) Lose(stream.worker(), stream.incarnation(), "its connection broke");
}

grpc::Status FreezeServiceImpl::AnnounceLayers(grpc::ServerContext*,
                                               const v1::AnnounceLayersRequest* request,
                                               v1::AnnounceLayersResponse*) {
  absl::StatusOr<WorkerJoined> joined = DecodeJoined(*request);
  if (!joined.ok()) return ToGrpcStatus(joined.status());
  absl::MutexLock lock(&mutex_);
  if (const absl::Status status = CheckNotEnded(); !status.ok()) return ToGrpcStatus(status);
  auto member = members_.find(joined->worker);
  if (member == members_.end()) {
    return ToGrpcStatus(absl::NotFoundError(absl::StrCat(
        "worker ", request->worker_id(), " has no open Join stream; call Join first")));
  }
  if (member->second.stream->incarnation() != request->incarnation()) {
    return ToGrpcStatus(absl::FailedPreconditionError(absl::StrCat(
        "incarnation ", request->incarnation(), " of worker ", request->worker_id(),
        " is not the one that is connected (", member->second.stream->incarnation(), ")")));
  }
  if (ended_workers_.contains(joined->worker)) {
    return ToGrpcStatus(absl::FailedPreconditionError(
        absl::StrCat("worker ", request->worker_id(), " has ended already; join again")));
  }
  const bool was_announced = std::exchange(member->second.announced, true);
  const absl::Status status = ApplyEvent(*joined);
  if (!status.ok()) {
    // Publish may have emptied members_.
    if (auto again = members_.find(joined->worker); again != members_.end())
      again->second.announced = was_announced;
    return ToGrpcStatus(status);
  }
  return grpc::Status::OK;
}

absl::Status FreezeServiceImpl::CheckMember(const std::string& worker_id,
                                            int64_t generation) const {
  if (generation != coordinator_->generation().value()) {
    return absl::FailedPreconditionError(absl::StrCat("generation ", generation,
                                                      " is stale: the run is at generation ",
                                                      coordinator_->generation().value()));
  }
  for (const WorkerId& worker : ranks_) {
    if (worker.value() == worker_id) return absl::OkStatus();
  }
  return absl::NotFoundError(
      absl::StrCat("worker \"", worker_id, "\" is not a member of generation ", generation));
}

grpc::Status FreezeServiceImpl::EndWorker(grpc::ServerContext*, const v1::EndWorkerRequest* request,
                                          v1::EndWorkerResponse*) {
  if (const absl::Status status = CheckEndWorker(*request); !status.ok())
    return ToGrpcStatus(status);
  absl::MutexLock lock(&mutex_);
  return ToGrpcStatus(TakeEndWorker(*request));
}

absl::Status FreezeServiceImpl::TakeEndWorker(const v1::EndWorkerRequest& request) {
  const WorkerId worker(request.worker_id());
  auto ended = ended_workers_.find(worker);
  if (ended != ended_workers_.end()) {
    if (ended->second.SerializeAsString() == request.SerializeAsString())
      return absl::OkStatus();  // repeated
    return absl::FailedPreconditionError(
        absl::StrCat("worker ", request.worker_id(), " has ended already"));
  }
  auto member = members_.find(worker);
  const bool known = member != members_.end();
  const bool is_waiting = coordinator_->state() == RunState::kWaiting;
  if (is_waiting && known && !request.error().empty()) {
    // Between generations, maybe before it was announced: nothing depends on it.
    LogError("worker ", request.worker_id(), " failed before the start: ", request.error());
    const int64_t incarnation = member->second.stream->incarnation();
    if (std::exchange(member->second.announced, false)) {
      SP_RETURN_IF_ERROR(ApplyEvent(
          WorkerLost{.worker = worker, .incarnation = incarnation, .how = request.error()}));
    }
    if (ended_workers_.size() >= static_cast<size_t>(limits::kWorkersMax)) {
      // Words of workers that have left; connected ones are fewer than the limit.
      std::erase_if(ended_workers_, [this](const auto& ended) ABSL_NO_THREAD_SAFETY_ANALYSIS {
        return !members_.contains(ended.first);
      });
    }
    ended_workers_[worker] = request;
    return absl::OkStatus();
  }
  if (!known && is_waiting) {
    return absl::NotFoundError(absl::StrCat("worker \"", request.worker_id(), "\" has not joined"));
  }
  SP_RETURN_IF_ERROR(CheckMember(request.worker_id(), request.generation()));
  ended_workers_[worker] = request;  // before: the event may end the generation, which clears it
  if (!end_) {
    const absl::Status applied =
        request.error().empty()
            ? ApplyEvent(DecodeFinished(request))
            : ApplyEvent(WorkerFailed{worker, Generation(request.generation()), request.error()});
    if (!applied.ok()) {
      ended_workers_.erase(worker);
      return applied;
    }
  }
  const std::string text =
      absl::StrCat("worker ", request.worker_id(),
                   request.error().empty() ? " finished" : " failed: ", request.error());
  Tell(LogLevel::kInfo, text);
  return absl::OkStatus();
}

}  // namespace smartpipe
