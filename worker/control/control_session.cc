#include "worker/control/control_session.h"

#include <unistd.h>

#include <algorithm>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <thread>
#include <type_traits>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "services/base/status_macros.h"
#include "services/obs/log.h"
#include "services/rpc/channel.h"
#include "services/rpc/status.h"
#include "smartpipe/v1/freeze_service.grpc.pb.h"
#include "worker/control/encode.h"
#include "worker/control/grpc_key_value_store.h"
#include "worker/control/join_client.h"
#include "worker/control/report_client.h"

namespace smartpipe {
namespace {

using Stub = v1::FreezeService::Stub;

constexpr absl::Duration kCallTimeout = absl::Seconds(5);
constexpr absl::Duration kRetryPeriod = absl::Milliseconds(100);
// A refused call may be the first sign of a run that ends; its reason is then on the stream.
constexpr absl::Duration kEndGrace = absl::Seconds(3);
// A broken transfer is mostly the echo of a worker that died; the service knows which.
constexpr absl::Duration kEchoGrace = absl::Milliseconds(500);
constexpr absl::Duration kFailTimeout = absl::Milliseconds(1500);
constexpr int kStepsPerCall = 1000;
constexpr size_t kEvaluationsQueuedMax = 64;

std::string HostAndProcess() {
  char host[256] = "";
  gethostname(host, sizeof(host) - 1);
  return absl::StrCat(host, " process ", getpid());
}

bool IsRetryable(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status);
}

RunEnd EndOf(const v1::EndOfRun& end) {
  if (end.success()) return RunEnd::kFinished;
  if (end.stopped()) return RunEnd::kStopped;
  return end.failed() ? RunEnd::kFailed : RunEnd::kOpen;
}

bool MayBeEcho(const absl::Status& status) {
  return IsRetryable(status) || absl::IsAborted(status) || absl::IsCancelled(status);
}

class ControlSessionImpl final : public ControlSession {
 public:
  ControlSessionImpl(const Options& options, std::shared_ptr<grpc::Channel> channel)
      : options_(options),
        incarnation_(absl::ToUnixMicros(absl::Now())),
        channel_(std::move(channel)),
        stub_(v1::FreezeService::NewStub(channel_)),
        decision_timeout_(options.decision_timeout),
        report_client_(stub_.get()),
        join_(channel_,
              {.request = [this] { return MakeJoinRequest(); },
               .on_message = [this](const v1::JoinResponse& message) { return Handle(message); },
               .on_break = [this](const std::string& how) { OnBreak(how); },
               .on_end = [this](const absl::Status& why) { OnStreamEnd(why); },
               .patience = [this] { return patience(); }}) {
    sender_ = std::thread([this] { SendLoop(); });
    join_.Start();
  }
  ~ControlSessionImpl() override;

  absl::StatusOr<RunWelcome> WaitWelcome() override;
  absl::Status AnnounceLayers(const std::vector<LayerDescription>& layers, const RunShape& shape,
                              const std::vector<Step>& checkpoints) override;
  absl::StatusOr<WorkerAssignment> WaitAssignment() override;
  absl::StatusOr<WorkerVerdict> WaitVerdict(IntervalIndex boundary,
                                            absl::Duration timeout) override;
  absl::StatusOr<WorkerVerdict> WaitVerdict(IntervalIndex boundary) override;
  std::optional<WorkerVerdict> PeekVerdict(IntervalIndex boundary) override;
  bool is_paused() override;
  void set_decision_timeout(absl::Duration timeout) override;
  void Report(IntervalReportInfo report) override;
  void ReportStep(const StepProgressInfo& progress) override;
  void ReportEvaluation(const EvaluationInfo& evaluation) override;
  absl::Status WaitReported() override;
  absl::Status Finish(const WorkerResult& result) override;
  absl::Status LeaveGeneration(const absl::Status& why) override;
  std::string DescribeQueues() override {
    Lock lock(&mutex_);
    return absl::StrCat("not sent: ", reports_.size(), " reports, ", steps_.size(), " steps, ",
                        evaluations_.size(), " evaluations; next verdict is that of boundary ",
                        next_verdict_.value(), ", asked for ", newest_asked_.value());
  }
  bool generation_over(absl::Duration wait) override {
    Lock lock(&mutex_);
    AwaitOver(wait);
    return over_.has_value() && !ended_;
  }
  RunEnd run_end() override {
    Lock lock(&mutex_);
    return run_end_;
  }
  void Fail(const absl::Status& why) override;
  absl::Status WaitEnd(absl::Duration timeout) override;
  void OnEnd(std::function<void(const absl::Status& why)> callback) override;
  void OnClock(std::function<void(const ClockReading&)> callback) override {
    Lock lock(&mutex_);
    on_clock_ = std::move(callback);
  }
  std::shared_ptr<KeyValueStore> MakeKeyValueStore(Generation generation) override;

 private:
  using Lock = absl::MutexLock;

  v1::JoinRequest MakeJoinRequest() ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status Handle(const v1::JoinResponse& message) ABSL_LOCKS_EXCLUDED(mutex_);
  void OnBreak(const std::string& how) ABSL_LOCKS_EXCLUDED(mutex_);
  void OnStreamEnd(const absl::Status& why) ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status KeepAssignment(const v1::Assignment& proto) ABSL_LOCKS_EXCLUDED(mutex_);
  void EndGeneration(const v1::EndOfGeneration& end) ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status KeepVerdict(const v1::Verdict& proto) ABSL_LOCKS_EXCLUDED(mutex_);
  void ReadClock(const v1::ReportIntervalResponse& response, int64_t sent_ns, int64_t answered_ns)
      ABSL_LOCKS_EXCLUDED(mutex_);
  void SendLoop();
  v1::ReportProgressRequest TakeProgress() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  /// Ends the session; the first end counts. `why` OK = all workers finished; `error` is what later
  /// calls return.
  void End(const absl::Status& why, const absl::Status& error) ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status Gone(absl::string_view how) const {
    return ServiceGone(options_.service_address, how);
  }
  /// One call, cancelled when the session ends with an error.
  template <typename Method, typename Request, typename Response>
  absl::Status CallOnce(Method method, const Request& request, Response* response,
                        absl::Duration timeout) ABSL_LOCKS_EXCLUDED(mutex_);
  /// Repeats it while the service is unavailable, until patience() is over; then the service counts
  /// as gone. ABORTED when the generation ends meanwhile.
  template <typename Method, typename Request, typename Response>
  absl::Status Call(Method method, const Request& request, Response* response)
      ABSL_LOCKS_EXCLUDED(mutex_);
  /// The same for a call that `once` makes; a report that is over a limit is repeated, too.
  template <typename Once>
  absl::Status Retry(bool is_report, const Once& once) ABSL_LOCKS_EXCLUDED(mutex_);

  absl::Duration patience() ABSL_LOCKS_EXCLUDED(mutex_) {
    Lock lock(&mutex_);
    return decision_timeout_;
  }
  bool HasProgress() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return !steps_.empty() || !evaluations_.empty();
  }
  /// True when the generation is over within `timeout`.
  bool AwaitOver(absl::Duration timeout) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool HasUrgent() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return ended_ || !reports_.empty() || (num_flushing_ > 0 && HasProgress());
  }
  bool HasWork() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return HasUrgent() || HasProgress();
  }
  /// No more is to be done for the generation.
  bool Over() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return ended_ || over_.has_value(); }
  /// Why, once it is over.
  absl::Status WhyOver() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return ended_ ? end_error_ : absl::AbortedError(absl::StrCat("the generation ended: ", *over_));
  }
  bool Flushed() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return Over() || (reports_.empty() && !HasProgress() && !sending_);
  }
  void DropQueued() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    reports_.clear();
    steps_.clear();
    evaluations_.clear();
  }

  const Options options_;
  const int64_t incarnation_;
  const std::shared_ptr<grpc::Channel> channel_;
  const std::unique_ptr<Stub> stub_;

  absl::Mutex mutex_;
  absl::Duration decision_timeout_ ABSL_GUARDED_BY(mutex_);
  // Heard.
  std::optional<RunWelcome> welcome_ ABSL_GUARDED_BY(mutex_);
  std::optional<WorkerAssignment> assignment_ ABSL_GUARDED_BY(mutex_);  // the newest
  // Why its generation, or the wait for one, is over; nothing = it is not.
  std::optional<std::string> over_ ABSL_GUARDED_BY(mutex_);
  std::map<IntervalIndex, WorkerVerdict> verdicts_
      ABSL_GUARDED_BY(mutex_);                          // from the newest asked for on
  Generation last_generation_ ABSL_GUARDED_BY(mutex_);  // that WaitAssignment returned
  IntervalIndex next_verdict_ ABSL_GUARDED_BY(mutex_);  // expected next on the stream
  IntervalIndex newest_asked_ ABSL_GUARDED_BY(mutex_);
  bool held_ ABSL_GUARDED_BY(mutex_) = false;  // the next verdict is, on purpose
  // To say.
  std::deque<IntervalReportInfo> reports_ ABSL_GUARDED_BY(mutex_);
  std::deque<StepProgressInfo> steps_ ABSL_GUARDED_BY(mutex_);
  std::deque<EvaluationInfo> evaluations_ ABSL_GUARDED_BY(mutex_);
  absl::Time next_progress_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
  int num_flushing_ ABSL_GUARDED_BY(mutex_) = 0;  // calls that wait for all to be sent
  bool sending_ ABSL_GUARDED_BY(mutex_) = false;
  // The end.
  absl::Status refused_ ABSL_GUARDED_BY(mutex_);    // why a report was refused, if one was
  bool finishing_ ABSL_GUARDED_BY(mutex_) = false;  // Finish says this worker's last word
  RunEnd run_end_ ABSL_GUARDED_BY(mutex_) = RunEnd::kOpen;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status end_ ABSL_GUARDED_BY(mutex_);        // OK = all workers finished
  absl::Status end_error_ ABSL_GUARDED_BY(mutex_);  // never OK after the end
  std::function<void(const absl::Status&)> on_end_ ABSL_GUARDED_BY(mutex_);
  std::function<void(const ClockReading&)> on_clock_ ABSL_GUARDED_BY(mutex_);
  std::set<grpc::ClientContext*> pending_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::weak_ptr<GrpcKeyValueStore>> stores_ ABSL_GUARDED_BY(mutex_);

  ReportClient report_client_;
  std::thread sender_;
  JoinClient join_;  // last: its callbacks use all of the above
};

ControlSessionImpl::~ControlSessionImpl() {
  {
    Lock lock(&mutex_);
    on_end_ = nullptr;
  }
  const absl::Status closed = absl::CancelledError("the control session was closed");
  End(closed, closed);
  sender_.join();
}

// ---- The end ------------------------------------------------------------------------------------

void ControlSessionImpl::End(const absl::Status& why, const absl::Status& error) {
  std::function<void(const absl::Status&)> on_end;
  std::vector<std::weak_ptr<GrpcKeyValueStore>> stores;
  absl::Status told, told_error;
  {
    Lock lock(&mutex_);
    if (ended_) return;
    ended_ = true;
    // The end of the run that our own failure brought about does not take its place.
    end_ = refused_.ok() ? why : refused_;
    end_error_ = refused_.ok() ? error : refused_;
    told_error = end_error_;
    told = end_;
    on_end = std::exchange(on_end_, nullptr);
    stores = std::exchange(stores_, {});
    // The answers of our own last calls are still on their way when all workers finished, or
    // stopped.
    if (!end_.ok() && !finishing_) {
      for (grpc::ClientContext* context : pending_) context->TryCancel();
      report_client_.Cancel();
    }
  }
  for (const std::weak_ptr<GrpcKeyValueStore>& weak : stores) {
    if (std::shared_ptr<GrpcKeyValueStore> store = weak.lock()) store->CancelBecause(told_error);
  }
  if (on_end) on_end(told);
}

void ControlSessionImpl::OnEnd(std::function<void(const absl::Status& why)> callback) {
  absl::Status why;
  {
    Lock lock(&mutex_);
    if (!Over()) {
      on_end_ = std::move(callback);
      return;
    }
    why = ended_ ? end_ : WhyOver();
  }
  callback(why);
}

absl::Status ControlSessionImpl::WaitEnd(absl::Duration timeout) {
  Lock lock(&mutex_);
  if (mutex_.AwaitWithTimeout(absl::Condition(&ended_), timeout)) return end_;
  return absl::DeadlineExceededError(
      absl::StrCat("the run has not ended within ", absl::FormatDuration(timeout)));
}

// ---- The stream ---------------------------------------------------------------------------------

v1::JoinRequest ControlSessionImpl::MakeJoinRequest() {
  v1::JoinRequest request;
  request.set_worker_id(options_.worker.value());
  request.set_incarnation(incarnation_);
  request.set_address(HostAndProcess());
  Lock lock(&mutex_);
  request.set_rejoin(welcome_.has_value());
  if (!assignment_) return request;
  request.set_generation(assignment_->generation.value());
  request.set_next_boundary(next_verdict_.value());
  return request;
}

void ControlSessionImpl::OnBreak(const std::string& how) {
  std::vector<std::weak_ptr<GrpcKeyValueStore>> stores;
  {
    Lock lock(&mutex_);
    if (ended_) return;
    stores = std::exchange(stores_, {});
    LogWarning(Gone(how).message(), "; trying again for ", absl::FormatDuration(decision_timeout_));
  }
  // Their keys are gone with it.
  for (const std::weak_ptr<GrpcKeyValueStore>& weak : stores) {
    if (std::shared_ptr<GrpcKeyValueStore> store = weak.lock()) store->CancelBecause(Gone(how));
  }
}

void ControlSessionImpl::OnStreamEnd(const absl::Status& why) {
  const absl::Status error = absl::IsUnavailable(why) ? Gone(why.message()) : why;
  End(error, error);  // ignored after an EndOfRun
}

absl::Status ControlSessionImpl::Handle(const v1::JoinResponse& message) {
  switch (message.event_case()) {
    case v1::JoinResponse::kWelcome: {
      Lock lock(&mutex_);
      if (welcome_.has_value()) {
        LogInfo("connected to the freeze service again");
        return absl::OkStatus();
      }
      welcome_ = RunWelcome{.run_id = message.welcome().run_id(),
                            .config_toml = message.welcome().config_toml(),
                            .run_dir = message.welcome().run_dir(),
                            .num_cores = message.welcome().num_cores(),
                            .parameter_service = message.welcome().parameter_service()};
      return absl::OkStatus();
    }
    case v1::JoinResponse::kWaiting: {
      LogInfo(message.waiting().message());
      Lock lock(&mutex_);
      held_ = assignment_.has_value() && !Over();
      return absl::OkStatus();
    }
    case v1::JoinResponse::kAssignment:
      return KeepAssignment(message.assignment());
    case v1::JoinResponse::kVerdict:
      return KeepVerdict(message.verdict());
    case v1::JoinResponse::kEndOfGeneration:
      EndGeneration(message.end_of_generation());
      return absl::OkStatus();
    case v1::JoinResponse::kEndOfRun: {
      const v1::EndOfRun& end = message.end_of_run();
      {
        Lock lock(&mutex_);
        run_end_ = EndOf(end);
      }
      const absl::Status error = absl::AbortedError(
          absl::StrCat(end.failed() ? "the run has failed: " : "the run ended: ", end.reason()));
      End(end.success() ? absl::OkStatus() : error, error);
      join_.Stop();
      return absl::OkStatus();
    }
    case v1::JoinResponse::EVENT_NOT_SET:
      return absl::OkStatus();  // from a newer service
  }
  return absl::OkStatus();
}

absl::Status ControlSessionImpl::KeepAssignment(const v1::Assignment& proto) {
  absl::StatusOr<WorkerAssignment> assignment = DecodeAssignment(proto);
  if (!assignment.ok()) return assignment.status();
  Lock lock(&mutex_);
  if (assignment_ && assignment->generation <= assignment_->generation) return absl::OkStatus();
  next_verdict_ = newest_asked_ = assignment->first_boundary;
  verdicts_.clear();
  held_ = false;
  assignment_ = *std::move(assignment);
  return absl::OkStatus();
}

void ControlSessionImpl::EndGeneration(const v1::EndOfGeneration& end) {
  std::function<void(const absl::Status&)> on_end;
  std::vector<std::weak_ptr<GrpcKeyValueStore>> stores;
  absl::Status why;
  {
    Lock lock(&mutex_);
    if (Over()) return;
    over_ = end.reason();
    why = WhyOver();
    DropQueued();
    on_end = std::exchange(on_end_, nullptr);
    on_clock_ = nullptr;
    stores = std::exchange(stores_, {});
  }
  LogInfo("generation ", end.generation(), " is over: ", end.reason());
  for (const std::weak_ptr<GrpcKeyValueStore>& weak : stores) {
    if (std::shared_ptr<GrpcKeyValueStore> store = weak.lock()) store->CancelBecause(why);
  }
  if (on_end) on_end(why);
}

absl::Status ControlSessionImpl::KeepVerdict(const v1::Verdict& proto) {
  absl::StatusOr<WorkerVerdict> verdict = DecodeWorkerVerdict(proto);
  if (!verdict.ok()) return verdict.status();
  Lock lock(&mutex_);
  if (verdict->boundary < next_verdict_) return absl::OkStatus();
  if (verdict->boundary != next_verdict_) {
    return absl::InternalError(absl::StrCat("it sent the verdict of boundary ", proto.boundary(),
                                            " instead of ", next_verdict_.value()));
  }
  ++next_verdict_;
  held_ = false;
  verdicts_[verdict->boundary] = *std::move(verdict);
  return absl::OkStatus();
}

absl::StatusOr<RunWelcome> ControlSessionImpl::WaitWelcome() {
  Lock lock(&mutex_);
  auto ready = [this]()
                   ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return ended_ || welcome_.has_value(); };
  mutex_.Await(absl::Condition(&ready));
  if (ended_) return end_error_;
  return *welcome_;
}

absl::StatusOr<WorkerAssignment> ControlSessionImpl::WaitAssignment() {
  Lock lock(&mutex_);
  auto ready = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return Over() || (assignment_.has_value() && assignment_->generation > last_generation_);
  };
  mutex_.Await(absl::Condition(&ready));
  if (Over()) return WhyOver();
  last_generation_ = assignment_->generation;
  return *assignment_;
}

absl::StatusOr<WorkerVerdict> ControlSessionImpl::WaitVerdict(IntervalIndex boundary,
                                                              absl::Duration timeout) {
  Lock lock(&mutex_);
  if (boundary < newest_asked_) {
    return absl::FailedPreconditionError(absl::StrCat("boundary ", boundary.value(),
                                                      " was passed already: boundary ",
                                                      newest_asked_.value(), " was asked for"));
  }
  newest_asked_ = boundary;
  verdicts_.erase(verdicts_.begin(), verdicts_.lower_bound(boundary));
  auto ready = [this, boundary]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return Over() || verdicts_.contains(boundary);
  };
  bool in_time = mutex_.AwaitWithTimeout(absl::Condition(&ready), timeout);
  while (!in_time && held_) in_time = mutex_.AwaitWithTimeout(absl::Condition(&ready), timeout);
  if (Over()) return WhyOver();
  if (in_time) return verdicts_.at(boundary);
  return absl::DeadlineExceededError(absl::StrCat(
      "the freeze service at ", options_.service_address, " gave no verdict for boundary ",
      boundary.value(), " within ", absl::FormatDuration(timeout), " (the next one it owes is ",
      next_verdict_.value(), ")"));
}

absl::StatusOr<WorkerVerdict> ControlSessionImpl::WaitVerdict(IntervalIndex boundary) {
  absl::Duration timeout;
  {
    Lock lock(&mutex_);
    timeout = decision_timeout_;
  }
  return WaitVerdict(boundary, timeout);
}

std::optional<WorkerVerdict> ControlSessionImpl::PeekVerdict(IntervalIndex boundary) {
  Lock lock(&mutex_);
  const auto found = verdicts_.find(boundary);
  return found == verdicts_.end() ? std::nullopt : std::optional(found->second);
}

bool ControlSessionImpl::is_paused() {
  Lock lock(&mutex_);
  return held_;
}

void ControlSessionImpl::set_decision_timeout(absl::Duration timeout) {
  Lock lock(&mutex_);
  decision_timeout_ = timeout;
}

// ---- Calls --------------------------------------------------------------------------------------

template <typename Method, typename Request, typename Response>
absl::Status ControlSessionImpl::CallOnce(Method method, const Request& request, Response* response,
                                          absl::Duration timeout) {
  grpc::ClientContext context;
  SetTimeout(context, timeout);
  {
    Lock lock(&mutex_);
    if (ended_) return end_error_;
    pending_.insert(&context);
  }
  const grpc::Status status = (stub_.get()->*method)(&context, request, response);
  Lock lock(&mutex_);
  pending_.erase(&context);
  if (!status.ok() && ended_) return end_error_;
  return FromGrpcStatus(status);
}

template <typename Once>
absl::Status ControlSessionImpl::Retry(bool is_report, const Once& once) {
  const absl::Time gone = absl::Now() + patience();
  while (true) {
    const absl::Status status = once();
    if (status.ok()) return status;
    // Reports that are over a limit may be under it soon; what is too large stays so.
    const bool retry = IsRetryable(status) || (is_report && absl::IsResourceExhausted(status));
    if (retry && absl::Now() >= gone) {
      const absl::Status why = Gone(status.message());
      End(why, why);
    }
    Lock lock(&mutex_);
    if (retry) AwaitOver(kRetryPeriod);
    if (absl::IsFailedPrecondition(status)) AwaitOver(kEndGrace);
    if (Over()) return WhyOver();
    if (!retry) return status;
  }
}

template <typename Method, typename Request, typename Response>
absl::Status ControlSessionImpl::Call(Method method, const Request& request, Response* response) {
  return Retry(std::is_same_v<Request, v1::ReportProgressRequest>,
               [&] { return CallOnce(method, request, response, kCallTimeout); });
}

bool ControlSessionImpl::AwaitOver(absl::Duration timeout) {
  return mutex_.AwaitWithTimeout(absl::Condition(this, &ControlSessionImpl::Over), timeout);
}

absl::Status ControlSessionImpl::AnnounceLayers(const std::vector<LayerDescription>& layers,
                                                const RunShape& shape,
                                                const std::vector<Step>& checkpoints) {
  v1::AnnounceLayersRequest request = EncodeLayers(layers, shape);
  request.set_worker_id(options_.worker.value());
  request.set_incarnation(incarnation_);
  for (const Step step : checkpoints) request.add_checkpoints(step.value());
  {
    Lock lock(&mutex_);
    over_.reset();
  }
  v1::AnnounceLayersResponse response;
  const absl::Time give_up = absl::Now() + patience();
  while (true) {
    const absl::Status status = Call(&Stub::AnnounceLayers, request, &response);
    // A service that was just started again does not know this worker's stream yet.
    if (!absl::IsNotFound(status) || absl::Now() >= give_up)
      return Annotate(status, "announcing the model's layers");
    Lock lock(&mutex_);
    if (AwaitOver(kRetryPeriod)) return WhyOver();
  }
}

absl::Status ControlSessionImpl::WaitReported() {
  Lock lock(&mutex_);
  ++num_flushing_;
  mutex_.Await(absl::Condition(this, &ControlSessionImpl::Flushed));
  --num_flushing_;
  return Over() ? WhyOver() : absl::OkStatus();
}

absl::Status ControlSessionImpl::Finish(const WorkerResult& result) {
  v1::EndWorkerRequest request = EncodeResult(result);
  request.set_worker_id(options_.worker.value());
  SP_RETURN_IF_ERROR(WaitReported());
  {
    Lock lock(&mutex_);
    finishing_ = true;
    if (assignment_) request.set_generation(assignment_->generation.value());
  }
  v1::EndWorkerResponse response;
  const absl::Status status = Call(&Stub::EndWorker, request, &response);
  Lock lock(&mutex_);
  finishing_ = false;
  // Until the run is over this worker may be needed again.
  if (status.ok()) mutex_.Await(absl::Condition(this, &ControlSessionImpl::Over));
  if (ended_ && (status.ok() || end_.ok())) return absl::OkStatus();
  return Over() ? WhyOver() : status;
}

absl::Status ControlSessionImpl::LeaveGeneration(const absl::Status& why) {
  v1::ReportFaultRequest request;
  request.set_worker_id(options_.worker.value());
  request.set_message(EncodeFailure(why));
  bool over = false, in_generation = false;
  {
    Lock lock(&mutex_);
    DropQueued();
    over = AwaitOver(kEchoGrace);
    in_generation = assignment_.has_value();
    if (in_generation) request.set_generation(assignment_->generation.value());
  }
  if (!over && !in_generation) return why;  // there has been none that it could end
  if (!over) {
    LogWarning("this worker cannot go on: ", why.message());
    v1::ReportFaultResponse response;
    const absl::Status status = Call(&Stub::ReportFault, request, &response);
    Lock lock(&mutex_);
    if (status.ok()) AwaitOver(decision_timeout_);
    if (!status.ok()) LogWarning("the service took no notice: ", status.message());
    if (!Over()) return why;
  }
  Lock lock(&mutex_);
  return ended_ ? end_error_ : absl::OkStatus();
}

void ControlSessionImpl::Fail(const absl::Status& why) {
  v1::EndWorkerRequest request;
  request.set_worker_id(options_.worker.value());
  request.set_error(EncodeFailure(why));
  {
    Lock lock(&mutex_);
    DropQueued();
    if (MayBeEcho(why)) AwaitOver(kEchoGrace);
    if (ended_) return;
    if (assignment_) request.set_generation(assignment_->generation.value());
  }
  v1::EndWorkerResponse response;
  const absl::Status status = CallOnce(&Stub::EndWorker, request, &response, kFailTimeout);
  if (!status.ok()) LogDebug("the failure could not be told: ", status.message());
}

std::shared_ptr<KeyValueStore> ControlSessionImpl::MakeKeyValueStore(Generation generation) {
  auto store = std::make_shared<GrpcKeyValueStore>(channel_, options_.service_address, generation);
  Lock lock(&mutex_);
  if (Over()) {
    store->CancelBecause(WhyOver());
  } else {
    stores_.push_back(store);
  }
  return store;
}

// ---- The queues ---------------------------------------------------------------------------------

void ControlSessionImpl::Report(IntervalReportInfo report) {
  Lock lock(&mutex_);
  auto room = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return Over() || reports_.size() < kReportsQueuedMax;
  };
  mutex_.Await(absl::Condition(&room));
  if (!Over()) reports_.push_back(std::move(report));
}

void ControlSessionImpl::ReportStep(const StepProgressInfo& progress) {
  Lock lock(&mutex_);
  auto room = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return Over() || steps_.size() < kStepsQueuedMax;
  };
  mutex_.Await(absl::Condition(&room));
  if (!Over()) steps_.push_back(progress);
}

void ControlSessionImpl::ReportEvaluation(const EvaluationInfo& evaluation) {
  Lock lock(&mutex_);
  auto room = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return Over() || evaluations_.size() < kEvaluationsQueuedMax;
  };
  mutex_.Await(absl::Condition(&room));
  if (!Over()) evaluations_.push_back(evaluation);
}

v1::ReportProgressRequest ControlSessionImpl::TakeProgress() {
  v1::ReportProgressRequest request;
  request.set_worker_id(options_.worker.value());
  if (assignment_) request.set_generation(assignment_->generation.value());
  while (!steps_.empty() && request.steps_size() < kStepsPerCall) {
    *request.add_steps() = EncodeStep(steps_.front());
    steps_.pop_front();
  }
  for (const EvaluationInfo& evaluation : evaluations_)
    *request.add_evaluations() = EncodeEvaluation(evaluation);
  evaluations_.clear();
  next_progress_ = absl::Now() + kProgressPeriod;
  return request;
}

// The call's times on both clocks: the way there and the way back are taken to be equally long.
void ControlSessionImpl::ReadClock(const v1::ReportIntervalResponse& response, int64_t sent_ns,
                                   int64_t answered_ns) {
  std::function<void(const ClockReading&)> on_clock;
  {
    Lock lock(&mutex_);
    on_clock = on_clock_;
  }
  const int64_t received_ns = response.service_received_ns();
  const int64_t replied_ns = response.service_replied_ns();
  if (!on_clock || received_ns == 0) return;
  const int64_t on_the_way_ns = (answered_ns - sent_ns) - (replied_ns - received_ns);
  on_clock({.local_ns = sent_ns + (answered_ns - sent_ns) / 2,
            .offset_ns = ((received_ns - sent_ns) + (replied_ns - answered_ns)) / 2,
            .error_ns = std::max<int64_t>(0, on_the_way_ns / 2)});
}

void ControlSessionImpl::SendLoop() {
  while (true) {
    std::optional<v1::ReportIntervalRequest> report;
    std::optional<v1::ReportProgressRequest> progress;
    {
      Lock lock(&mutex_);
      mutex_.Await(absl::Condition(this, &ControlSessionImpl::HasWork));
      if (!HasUrgent())
        mutex_.AwaitWithDeadline(absl::Condition(this, &ControlSessionImpl::HasUrgent),
                                 next_progress_);
      if (ended_) return;
      if (!reports_.empty()) {
        report = EncodeReport(reports_.front());
        report->set_worker_id(options_.worker.value());
        reports_.pop_front();
      }
      if (HasProgress() && (num_flushing_ > 0 || absl::Now() >= next_progress_))
        progress = TakeProgress();
      sending_ = true;
    }
    absl::Status status;
    v1::ReportIntervalResponse report_response;
    v1::ReportProgressResponse progress_response;
    if (report) {
      const int64_t sent_ns = MonotonicNs();
      status =
          Retry(true, [&] { return report_client_.Send(*report, &report_response, kCallTimeout); });
      if (status.ok()) ReadClock(report_response, sent_ns, MonotonicNs());
    }
    if (status.ok() && progress)
      status = Call(&Stub::ReportProgress, *progress, &progress_response);
    bool refused = false;
    {
      Lock lock(&mutex_);
      refused = !status.ok() && !Over();  // else nobody wants them any more
      if (refused) refused_ = Annotate(status, "the freeze service refused a report");
    }
    if (refused) {
      const absl::Status why = Annotate(status, "the freeze service refused a report");
      Fail(why);  // nobody can tell the service later
      End(why, why);
    }
    Lock lock(&mutex_);
    sending_ = false;
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<ControlSession>> ControlSession::Start(const Options& options) {
  std::shared_ptr<grpc::Channel> channel =
      MakeChannel({.address = options.service_address, .keepalive = {}, .tls = options.tls});
  SP_RETURN_IF_ERROR(Annotate(
      WaitConnected(*channel, options.service_address, options.connect_timeout, options.tls),
      "cannot reach the freeze service"));
  return std::make_unique<ControlSessionImpl>(options, std::move(channel));
}

}  // namespace smartpipe
