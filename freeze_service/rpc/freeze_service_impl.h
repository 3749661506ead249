// The FreezeService over gRPC: decode, validate, lock, Apply, persist, publish.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "freeze_service/core/coordinator.h"
#include "freeze_service/rpc/fault_point.h"
#include "freeze_service/rpc/join_stream.h"
#include "freeze_service/rpc/key_value_space.h"
#include "freeze_service/rpc/progress_log.h"
#include "freeze_service/rpc/rate_limit.h"
#include "freeze_service/rpc/report_queue.h"
#include "freeze_service/rpc/watchers.h"
#include "freeze_service/store/decision_store.h"
#include "grpcpp/grpcpp.h"
#include "services/base/clock.h"
#include "services/base/limits.h"
#include "services/obs/log.h"
#include "smartpipe/v1/freeze_service.grpc.pb.h"

namespace smartpipe {

/// Serves one run. An event is applied, its decisions are stored, and only then anyone hears of
/// them; if they cannot be stored, the run ends with a message and failure() says why.
///
/// Threads: any; one mutex around the Coordinator.  Test: tests/component/freeze_service
class FreezeServiceImpl final
    : public v1::FreezeService::WithRawCallbackMethod_Join<
          v1::FreezeService::WithRawCallbackMethod_WatchRun<
              v1::FreezeService::WithCallbackMethod_ReportInterval<v1::FreezeService::Service>>> {
 public:
  static constexpr char kName[] = "smartpipe.v1.FreezeService";

  struct Options {
    std::string run_id;
    std::string config_toml;   // canonical, served to the workers
    std::string run_dir;       // told to the workers
    std::string metrics_path;  // metrics.jsonl; "" = none
    std::string costs_path;    // costs.json; "" = none
    int64_t batch_size = 1;
    int32_t num_cores = 0;          // told to the workers
    std::string parameter_service;  // HOST:PORT, told to the workers; "" = no checkpoints
    FaultHook fault_hook;           // for tests
    bool resume = false;    // go on also with a run that has ended, or whose workers are new
    RunResumed resumption;  // how it is carried out from now on
    absl::Duration rejoin_patience = absl::Seconds(15);  // for members after a restart
  };
  /// `coordinator` is the one behind the store's records (RestoreCoordinator): what they tell is
  /// published already. Members of a running generation are given rejoin_patience to come back;
  /// workers that had joined before it announce their layers again.
  /// `clock` must outlive the service.  Errors: those of opening metrics_path and of the store.
  static absl::StatusOr<std::unique_ptr<FreezeServiceImpl>> Create(
      const Options& options, std::unique_ptr<Coordinator> coordinator,
      std::unique_ptr<DecisionStore> store, const Clock* clock);

  /// From now on broken streams are no losses: this process is about to end, and the run goes on
  /// when the service is started again.
  void Leave() ABSL_LOCKS_EXCLUDED(mutex_);
  /// Counts members as lost that have not come back in time after a restart. Call it often.
  void CheckMembers() ABSL_LOCKS_EXCLUDED(mutex_);
  /// True once every stream was told the end of the run.
  bool ended() const ABSL_LOCKS_EXCLUDED(mutex_);
  /// Why the service itself cannot go on; OK = it can.
  absl::Status failure() const ABSL_LOCKS_EXCLUDED(mutex_);

  grpc::ServerWriteReactor<grpc::ByteBuffer>* Join(grpc::CallbackServerContext* context,
                                                   const grpc::ByteBuffer* bytes) override;
  grpc::Status AnnounceLayers(grpc::ServerContext* context,
                              const v1::AnnounceLayersRequest* request,
                              v1::AnnounceLayersResponse* response) override;
  grpc::ServerBidiReactor<v1::ReportIntervalRequest, v1::ReportIntervalResponse>* ReportInterval(
      grpc::CallbackServerContext* context) override;
  grpc::Status ReportProgress(grpc::ServerContext* context,
                              const v1::ReportProgressRequest* request,
                              v1::ReportProgressResponse* response) override;
  grpc::Status ReportFault(grpc::ServerContext* context, const v1::ReportFaultRequest* request,
                           v1::ReportFaultResponse* response) override;
  grpc::Status EndWorker(grpc::ServerContext* context, const v1::EndWorkerRequest* request,
                         v1::EndWorkerResponse* response) override;

  grpc::Status SetKey(grpc::ServerContext* context, const v1::SetKeyRequest* request,
                      v1::SetKeyResponse* response) override;
  grpc::Status GetKeys(grpc::ServerContext* context, const v1::GetKeysRequest* request,
                       v1::GetKeysResponse* response) override;
  grpc::Status AddToKey(grpc::ServerContext* context, const v1::AddToKeyRequest* request,
                        v1::AddToKeyResponse* response) override;
  grpc::Status CompareAndSetKey(grpc::ServerContext* context,
                                const v1::CompareAndSetKeyRequest* request,
                                v1::CompareAndSetKeyResponse* response) override;
  grpc::Status CheckKeys(grpc::ServerContext* context, const v1::CheckKeysRequest* request,
                         v1::CheckKeysResponse* response) override;
  grpc::Status DeleteKey(grpc::ServerContext* context, const v1::DeleteKeyRequest* request,
                         v1::DeleteKeyResponse* response) override;
  grpc::Status CountKeys(grpc::ServerContext* context, const v1::CountKeysRequest* request,
                         v1::CountKeysResponse* response) override;

  grpc::Status GetRun(grpc::ServerContext* context, const v1::GetRunRequest* request,
                      v1::GetRunResponse* response) override;
  grpc::Status ListWorkers(grpc::ServerContext* context, const v1::ListWorkersRequest* request,
                           v1::ListWorkersResponse* response) override;
  grpc::Status ListLayers(grpc::ServerContext* context, const v1::ListLayersRequest* request,
                          v1::ListLayersResponse* response) override;
  grpc::Status GetPlan(grpc::ServerContext* context, const v1::GetPlanRequest* request,
                       v1::GetPlanResponse* response) override;
  grpc::Status ListVerdicts(grpc::ServerContext* context, const v1::ListVerdictsRequest* request,
                            v1::ListVerdictsResponse* response) override;
  grpc::Status ListOrders(grpc::ServerContext* context, const v1::ListOrdersRequest* request,
                          v1::ListOrdersResponse* response) override;
  grpc::Status FreezeLayers(grpc::ServerContext* context, const v1::FreezeLayersRequest* request,
                            v1::FreezeLayersResponse* response) override;
  grpc::Status UnfreezeLayers(grpc::ServerContext* context,
                              const v1::UnfreezeLayersRequest* request,
                              v1::UnfreezeLayersResponse* response) override;
  grpc::Status Rebalance(grpc::ServerContext* context, const v1::RebalanceRequest* request,
                         v1::RebalanceResponse* response) override;
  grpc::Status SetPolicy(grpc::ServerContext* context, const v1::SetPolicyRequest* request,
                         v1::SetPolicyResponse* response) override;
  grpc::Status Pause(grpc::ServerContext* context, const v1::PauseRequest* request,
                     v1::PauseResponse* response) override;
  grpc::Status Resume(grpc::ServerContext* context, const v1::ResumeRequest* request,
                      v1::ResumeResponse* response) override;
  grpc::Status Checkpoint(grpc::ServerContext* context, const v1::CheckpointRequest* request,
                          v1::CheckpointResponse* response) override;
  grpc::Status DrainWorker(grpc::ServerContext* context, const v1::DrainWorkerRequest* request,
                           v1::DrainWorkerResponse* response) override;
  grpc::Status Stop(grpc::ServerContext* context, const v1::StopRequest* request,
                    v1::StopResponse* response) override;
  grpc::ServerWriteReactor<grpc::ByteBuffer>* WatchRun(grpc::CallbackServerContext* context,
                                                       const grpc::ByteBuffer* bytes) override;

 private:
  struct Member {
    std::shared_ptr<JoinStream> stream;
    std::string address;  // host and process
    bool announced = false;
    RateLimit reports{limits::kReportsPerSecondMax};
  };
  struct LastReport {
    IntervalIndex interval;
    double step_s = 0, verdict_wait_s = 0;
  };

  FreezeServiceImpl(Options options, std::unique_ptr<Coordinator> coordinator,
                    std::unique_ptr<DecisionStore> store, std::unique_ptr<ProgressLog> progress,
                    const Clock* clock);

  /// Takes over what the store's records tell.
  absl::Status GoOn() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  /// Apply, persist, publish.
  absl::Status ApplyEvent(const Event& event) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  /// The same for reports that came together, with one synced write.
  void TakeReports(std::vector<WaitingReport> reports) ABSL_LOCKS_EXCLUDED(mutex_);
  /// Adds the event's record to `records` unless it is refused.
  absl::Status Apply(const Event& event, std::vector<EventRecord>* records,
                     std::optional<StoredSnapshot>* snapshot) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  /// Errors: why the run is over, when the records cannot be stored.
  absl::Status Store(absl::Span<const EventRecord> records,
                     const std::optional<StoredSnapshot>& snapshot)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  /// Tells everyone what stored records decided.
  void PublishAll(absl::Span<const EventRecord> records) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Reach(FaultPoint point, absl::Span<const EventRecord> records) const;
  void Publish(const StartGeneration& start) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Publish(const Verdict& verdict) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Publish(const EndGeneration& end) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  /// The core's state, beside what the workers write of theirs.
  void WriteDump(const EndGeneration& end) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Publish(const OrderAccepted& accepted) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Publish(const WorkerDrained& drained) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Publish(const EndRun& end) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  /// In the log, and to all watchers.
  void Tell(LogLevel level, const std::string& text) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void SendToAll(const v1::JoinResponse& message) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  /// The measured costs so far, for `smartpipe plan`, once a second at most and at the end; a
  /// failure is only logged.
  void WriteCosts() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void LogWeights() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  /// The next verdict is held back by a pause.
  bool IsHeld() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  /// Tells what the run waits for, if that has changed.
  void SendWaiting() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  absl::Status CheckOrder(const OrderGiven& given) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status TryOrder(const OrderGiven& given, v1::OrderResult* result)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status TakeOrder(const OrderGiven& given, v1::OrderResult* result)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  template <typename Request>
  grpc::Status AnswerOrder(grpc::ServerContext* context, const Request& request, Order order,
                           v1::OrderResult* result) ABSL_LOCKS_EXCLUDED(mutex_);

  absl::Status AddStream(const std::shared_ptr<JoinStream>& stream, const v1::JoinRequest& request)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  /// Makes room for a worker's new stream: ends its old one, counts its old process as lost.
  absl::Status MakeRoom(const WorkerId& worker, int64_t incarnation)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  /// All that a member of the running generation may have missed.
  void SendGeneration(JoinStream& stream, Rank rank, const v1::JoinRequest& request)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void SendAssignment(JoinStream& stream, Rank rank) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Lose(const WorkerId& worker, int64_t incarnation, const std::string& how)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  ProgressLog::Length progress_length() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void OnStreamBroken(JoinStream& stream) ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status TakeEndWorker(const v1::EndWorkerRequest& request)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status CheckMember(const std::string& worker_id, int64_t generation) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  /// Errors: RESOURCE_EXHAUSTED when a connected worker reports too often.
  absl::Status CheckRate(const WorkerId& worker) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  /// The run is over on somebody's order, and nothing has failed.
  bool IsStopped() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  /// The run is over by a failure of its own. One of the service leaves it open: its next start
  /// goes on with it.
  bool HasFailed() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  /// What its workers are told. Requires end_.
  v1::JoinResponse EndMessage() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status CheckNotEnded() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  /// How many verdicts are stored and sent; the Coordinator may hold newer ones after a failed
  /// append.
  int64_t num_published() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return std::min(coordinator_->verdicts().size(), num_published_);
  }
  /// Boundary whose verdict is in force at `step`; nothing before the start.
  std::optional<IntervalIndex> BoundaryAt(Step step) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  /// The published verdict of a boundary, from the log; without statistics where that cannot be
  /// read.
  Verdict WholeVerdict(IntervalIndex boundary) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  /// Plan in force at `step`; an empty one before the start.
  const Plan& PlanAt(Step step) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void FillRun(v1::Run& run) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Options options_;
  const Clock* const clock_;
  KeyValueSpace keys_;
  Watchers watchers_;

  mutable absl::Mutex mutex_;
  const std::unique_ptr<Coordinator> coordinator_ ABSL_PT_GUARDED_BY(mutex_);
  const std::unique_ptr<DecisionStore> store_ ABSL_PT_GUARDED_BY(mutex_);
  const std::unique_ptr<ProgressLog> progress_ ABSL_PT_GUARDED_BY(mutex_);
  int64_t num_published_ ABSL_GUARDED_BY(mutex_) = 0;           // verdicts
  std::map<WorkerId, Member> members_ ABSL_GUARDED_BY(mutex_);  // with an open stream
  std::vector<WorkerId> ranks_ ABSL_GUARDED_BY(mutex_);         // [rank] of the newest generation
  std::map<WorkerId, int64_t> absent_ ABSL_GUARDED_BY(mutex_);  // members that may come back
  absl::Time absent_until_ ABSL_GUARDED_BY(mutex_) = absl::InfiniteFuture();
  std::map<WorkerId, LastReport> last_reports_ ABSL_GUARDED_BY(mutex_);  // of members
  std::map<WorkerId, v1::EndWorkerRequest> ended_workers_ ABSL_GUARDED_BY(mutex_);
  std::string waiting_message_ ABSL_GUARDED_BY(mutex_);  // newest one sent
  std::optional<EndRun> end_ ABSL_GUARDED_BY(mutex_);
  bool leaving_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status failure_ ABSL_GUARDED_BY(mutex_);
  absl::Time costs_written_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
  bool costs_failed_ ABSL_GUARDED_BY(mutex_) = false;
  ReportQueue reports_;  // last: its thread uses the others
};

}  // namespace smartpipe
