// A run from the first join to its end, as workers and operators see it.
#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/base/limits.h"
#include "services/rpc/status.h"
#include "tests/component/freeze_service/service_harness.h"

namespace smartpipe {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using Stub = v1::FreezeService::Stub;

/// A store whose disk is full from the n-th record on.
class FullStore final : public DecisionStore {
 public:
  explicit FullStore(int64_t num_records) : num_records_(num_records) {}
  absl::Status Append(absl::Span<const EventRecord> records,
                      const StoredSnapshot* snapshot) override {
    if (store_->num_records() >= num_records_)
      return absl::ResourceExhaustedError("No space left on device");
    return store_->Append(records, snapshot);
  }
  int64_t num_records() const override { return store_->num_records(); }
  absl::Status Read(int64_t first,
                    const std::function<absl::Status(const EventRecord&)>& visit) const override {
    return store_->Read(first, visit);
  }
  absl::StatusOr<Verdict> ReadVerdict(IntervalIndex) const override {
    return absl::UnavailableError("Input/output error");
  }
  std::optional<StoredSnapshot> ReadSnapshot() const override { return store_->ReadSnapshot(); }

 private:
  const int64_t num_records_;
  const std::unique_ptr<DecisionStore> store_ = MakeMemoryDecisionStore();
};

/// Over a port (true) or in process (false).
class RunLife : public testing::TestWithParam<bool> {
 protected:
  std::shared_ptr<grpc::Channel> Channel() {
    return GetParam() ? harness_.Channel() : harness_.InProcessChannel();
  }
  ServiceHarness harness_;
};
INSTANTIATE_TEST_SUITE_P(Channels, RunLife, testing::Bool(),
                         [](const auto& info) { return info.param ? "Port" : "InProcess"; });

TEST_P(RunLife, FromJoinToSuccess) {
  StartedRun run(Channel());
  EXPECT_EQ(run.assignment.generation(), 1);
  EXPECT_EQ(run.assignment.rank(), 0);
  EXPECT_THAT(run.assignment.members(), ElementsAre("w0", "w1"));
  EXPECT_THAT(run.assignment.plan().cuts(), ElementsAre(2));

  const std::vector<v1::Verdict> verdicts = run.ReportAll();
  for (int64_t boundary = 0; boundary < 4; ++boundary) {
    EXPECT_EQ(verdicts[boundary].boundary(), boundary);
    EXPECT_EQ(verdicts[boundary].step(), boundary * 10);
    EXPECT_EQ(verdicts[boundary].frontier(), boundary < 2 ? 0 : 1);
    EXPECT_FALSE(verdicts[boundary].reason().empty());
    // Both workers hear the very same words.
    EXPECT_EQ(run.w1.Next().verdict().SerializeAsString(), verdicts[boundary].SerializeAsString());
  }

  v1::ReportProgressRequest progress;
  progress.set_worker_id("w1");
  progress.set_generation(1);
  for (int step = 0; step < 40; ++step) {
    v1::StepProgress* added = progress.add_steps();
    added->set_step(step);
    added->set_loss(2.0 - 0.01 * step);
    added->set_step_s(0.016);
  }
  ASSERT_TRUE(run.w1.Progress(progress).ok());
  ASSERT_TRUE(run.w0.EndWorker("").ok());
  EXPECT_EQ(harness_.GetRun().state(), v1::RUN_STATE_RUNNING);
  ASSERT_TRUE(run.w1.EndWorker("").ok());
  for (FakeWorker* worker : {&run.w0, &run.w1}) {
    const v1::JoinResponse end = worker->Next();
    EXPECT_TRUE(end.end_of_run().success());
    EXPECT_EQ(end.end_of_run().reason(), "all 2 workers finished");
    EXPECT_TRUE(worker->EndOfStream().ok());
  }
  EXPECT_TRUE(harness_.service().ended());

  const v1::Run state = harness_.GetRun();
  EXPECT_EQ(state.state(), v1::RUN_STATE_FINISHED);
  EXPECT_EQ(state.message(), "all 2 workers finished");
  EXPECT_EQ(state.step(), 40);
  EXPECT_EQ(state.num_steps(), 40);
  EXPECT_DOUBLE_EQ(state.samples_per_second(), 32 / 0.016);
  EXPECT_EQ(state.num_verdicts(), 4);
  EXPECT_EQ(state.current().boundary(), 3);
  EXPECT_GT(state.speedup_limit(), 1.0);
  EXPECT_EQ(state.ended_workers_size(), 2);
  EXPECT_EQ(state.layers_size(), 4);
  // start_generation, 4 verdicts, end_run
  const std::string decisions = testutil::ReadFile(harness_.File("decisions.jsonl"));
  EXPECT_EQ(std::count(decisions.begin(), decisions.end(), '\n'), 6) << decisions;
}

TEST_P(RunLife, TellsWhatItWaitsFor) {
  FakeWorker w0(Channel(), "w0");
  const v1::Welcome welcome = w0.Next().welcome();
  EXPECT_EQ(welcome.run_id(), "test");
  EXPECT_THAT(welcome.config_toml(), HasSubstr("interval_steps = 10"));
  EXPECT_EQ(welcome.num_cores(), 3);
  EXPECT_THAT(w0.Next().waiting().message(), HasSubstr("0 of 2 workers"));
  ASSERT_TRUE(w0.Announce().ok());
  EXPECT_THAT(w0.Next().waiting().message(), HasSubstr("1 of 2 workers: w0"));
  {
    FakeWorker w1(Channel(), "w1");
    EXPECT_THAT(w1.NextBut(v1::JoinResponse::kWelcome).waiting().message(),
                HasSubstr("1 of 2 workers: w0"));
    EXPECT_EQ(harness_.GetRun().state(), v1::RUN_STATE_WAITING);
  }
  // A worker that left before it announced anything changes nothing; another one may take its id.
  EXPECT_TRUE(testutil::Eventually([&] { return FakeWorker(Channel(), "w1", 2).Welcomed(); },
                                   absl::Seconds(10)));
}

TEST_P(RunLife, AWorkerThatLeavesBeforeTheStartIsOnlyRemoved) {
  FakeWorker w0(Channel(), "w0");
  w0.Next();
  ASSERT_TRUE(w0.Announce().ok());
  EXPECT_THAT(harness_.GetRun().message(), HasSubstr("1 of 2"));
  w0.Break();
  ASSERT_TRUE(testutil::Eventually(
      [&] { return harness_.GetRun().message().starts_with("0 of 2"); }, absl::Seconds(10)));
  StartedRun run(Channel());
  EXPECT_EQ(harness_.GetRun().state(), v1::RUN_STATE_RUNNING);
}

TEST_P(RunLife, ALostWorkerEndsTheGenerationAtOnceAndIsNamed) {
  StartedRun run(Channel());
  const absl::Time start = absl::Now();
  run.w1.Break();
  const v1::EndOfGeneration end = run.w0.NextBut(v1::JoinResponse::kVerdict).end_of_generation();
  EXPECT_LT(absl::Now() - start, absl::Seconds(1));
  EXPECT_EQ(end.generation(), 1);
  EXPECT_THAT(end.reason(), HasSubstr("w1"));
  EXPECT_THAT(end.reason(), HasSubstr("its connection broke"));
  EXPECT_EQ(harness_.GetRun().state(), v1::RUN_STATE_WAITING);
  EXPECT_EQ(harness_.GetRun().last_fault(), end.reason());
  EXPECT_EQ(harness_.GetRun().num_recoveries(), 1);
  // What comes late from the old generation is refused and changes nothing.
  EXPECT_EQ(run.w0.EndWorker("").code(), absl::StatusCode::kFailedPrecondition);

  FakeWorker w1(Channel(), "w1", 2);
  ASSERT_TRUE(w1.Welcomed());
  ASSERT_TRUE(w1.Announce().ok());
  v1::AnnounceLayersRequest again = MakeAnnouncement("w0");
  again.add_checkpoints(12);  // w1 does not have it
  ASSERT_TRUE(run.w0.Announce(again).ok());
  const v1::Assignment assignment = w1.NextBut(v1::JoinResponse::kWaiting).assignment();
  EXPECT_EQ(assignment.generation(), 2);
  EXPECT_EQ(assignment.rank(), 1);
  EXPECT_EQ(assignment.first_step(), 0);
  EXPECT_EQ(assignment.plan().plan_epoch(), 1);
  EXPECT_EQ(w1.Next().verdict().boundary(), 0);
  // Verdicts that were given again have the statistics by which they were decided.
  v1::ListVerdictsResponse verdicts;
  ASSERT_TRUE(CallStub(w1.stub(), &Stub::ListVerdicts, v1::ListVerdictsRequest(), &verdicts).ok());
  EXPECT_EQ(verdicts.verdicts_size(), 2);
  for (const v1::Verdict& verdict : verdicts.verdicts()) EXPECT_EQ(verdict.eta_size(), 4);
  EXPECT_EQ(verdicts.verdicts(0).plan_epoch(), 1);
  EXPECT_EQ(harness_.GetRun().current().eta_size(), 4);
}

TEST_P(RunLife, AWorkerThatConnectsAgainHearsWhatItLacks) {
  StartedRun run(Channel());
  EXPECT_EQ(run.w0.Next().verdict().boundary(), 0);
  v1::JoinRequest request;
  request.set_worker_id("w0");
  request.set_incarnation(1);
  request.set_rejoin(true);
  request.set_generation(1);
  request.set_next_boundary(1);
  const auto stub = v1::FreezeService::NewStub(Channel());
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
  const auto stream = stub->Join(&context, request);
  v1::JoinResponse message;
  ASSERT_TRUE(stream->Read(&message) && message.has_welcome());
  ASSERT_TRUE(stream->Read(&message));
  EXPECT_EQ(message.verdict().boundary(), 1) << message.DebugString();
  EXPECT_EQ(harness_.GetRun().state(), v1::RUN_STATE_RUNNING);  // its old stream is no loss
  context.TryCancel();
}

TEST_P(RunLife, AnotherProcessInTheMembersPlaceEndsTheGeneration) {
  StartedRun run(Channel());
  FakeWorker twin(Channel(), "w0", 2);  // while the first one lives
  EXPECT_EQ(twin.EndOfStream().error_code(), grpc::StatusCode::ALREADY_EXISTS);
  EXPECT_EQ(harness_.GetRun().state(), v1::RUN_STATE_RUNNING);
  FakeWorker stranger(Channel(), "w7");
  EXPECT_EQ(stranger.EndOfStream().error_code(), grpc::StatusCode::FAILED_PRECONDITION);
}

TEST_P(RunLife, AFaultIsCheckedAndEndsTheGeneration) {
  StartedRun run(Channel());
  const auto report = [&](const std::string& worker, int64_t generation, const std::string& words) {
    v1::ReportFaultRequest request;
    request.set_worker_id(worker);
    request.set_generation(generation);
    request.set_message(words);
    v1::ReportFaultResponse response;
    return CallStub(run.w0.stub(), &v1::FreezeService::Stub::ReportFault, request, &response)
        .error_code();
  };
  EXPECT_EQ(report("w0", 1, ""), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(report("W 0", 1, "x"), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(report("w7", 1, "x"), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(report("w0", 2, "x"), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(report("w0", 1, std::string(10'000, 'x')), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(harness_.GetRun().state(), v1::RUN_STATE_RUNNING);
  EXPECT_EQ(report("w0", 1, "rank 1 closed the connection"), grpc::StatusCode::OK);
  EXPECT_EQ(report("w1", 1, "rank 0 closed the connection"), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(run.w1.NextBut(v1::JoinResponse::kVerdict).end_of_generation().generation(), 1);
  EXPECT_EQ(harness_.GetRun().num_recoveries(), 1);
}

TEST_P(RunLife, AFailedWorkerEndsTheRunWithItsOwnWords) {
  StartedRun run(Channel());
  ASSERT_TRUE(run.w0.EndWorker("out of memory in layer 3").ok());
  const v1::EndOfRun end = run.w1.WaitEndOfRun();
  EXPECT_THAT(end.reason(), HasSubstr("out of memory in layer 3"));
  EXPECT_THAT(end.reason(), HasSubstr("w0"));
  EXPECT_TRUE(end.failed());
  FakeWorker late(Channel(), "w0");
  EXPECT_EQ(late.WaitEndOfRun().DebugString(), end.DebugString()) << "which is no refusal";
  EXPECT_EQ(late.EndOfStream().error_code(), grpc::StatusCode::OK);
  // The other one may still leave its figures.
  EXPECT_TRUE(run.w1.EndWorker("").ok());
  EXPECT_EQ(harness_.GetRun().ended_workers_size(), 2);
}

TEST_P(RunLife, AWorkerThatFailsBeforeTheStartIsRemovedAndItsWordsAreKept) {
  FakeWorker w0(Channel(), "w0");
  w0.Next();
  v1::EndWorkerRequest request;
  request.set_worker_id("w0");
  request.set_error("no such dataset");
  EXPECT_TRUE(w0.EndWorker(request).ok());
  EXPECT_TRUE(w0.EndWorker(request).ok());  // repeated
  EXPECT_EQ(harness_.GetRun().state(), v1::RUN_STATE_WAITING);
  ASSERT_EQ(harness_.GetRun().ended_workers_size(), 1);
  EXPECT_EQ(harness_.GetRun().ended_workers(0).error(), "no such dataset");
  // Its stream is open still, but the worker is not there any more.
  const absl::Status refused = w0.Announce();
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("w0 has ended already; join again"));
  w0.Break();
  w0.EndOfStream();
  ASSERT_TRUE(testutil::Eventually([&] { return FakeWorker(Channel(), "w0", 2).Welcomed(); },
                                   absl::Seconds(10)));
}

TEST(EndedWorkers, WordsFromBeforeTheStartAreBounded) {
  ServiceHarness harness;
  const auto fail = [&](int i) {
    FakeWorker worker(harness.InProcessChannel(), absl::StrCat("w", i));
    worker.Next();
    EXPECT_TRUE(worker.EndWorker("no such dataset").ok());
  };
  for (int i = 0; i < limits::kWorkersMax; ++i) fail(i);
  EXPECT_LE(harness.GetRun().ended_workers_size(), limits::kWorkersMax);
  for (int i = 0; i < 10; ++i) fail(limits::kWorkersMax + i);
  const v1::Run run = harness.GetRun();
  EXPECT_LE(run.ended_workers_size(), limits::kWorkersMax);
  EXPECT_GE(run.ended_workers_size(), 1);
}

/// Sends more than a stream keeps before the worker can read any of it.
class FloodService final
    : public v1::FreezeService::WithRawCallbackMethod_Join<v1::FreezeService::Service> {
 public:
  grpc::ServerWriteReactor<grpc::ByteBuffer>* Join(grpc::CallbackServerContext*,
                                                   const grpc::ByteBuffer*) override {
    std::shared_ptr<JoinStream> stream =
        JoinStream::Create(WorkerId("w0"), 1, [this](JoinStream&) { ++num_broken; });
    for (int i = 0; i < 5000; ++i) stream->Send(v1::JoinResponse());
    return stream.get();
  }
  std::atomic<int> num_broken = 0;
};

TEST(JoinStream, AnOverflowIsALoss) {
  FloodService service;
  const std::unique_ptr<RpcServer> server =
      StartServer({}, {{FreezeServiceImpl::kName, &service}}).value();
  FakeWorker w0(server->InProcessChannel(), "w0");
  EXPECT_EQ(w0.EndOfStream().error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_TRUE(testutil::Eventually([&] { return service.num_broken > 0; }, absl::Seconds(10)));
}

TEST_P(RunLife, AFinishedWorkerMayLeave) {
  StartedRun run(Channel());
  run.ReportAll();
  ASSERT_TRUE(run.w0.EndWorker("").ok());
  run.w0.Break();
  run.w0.EndOfStream();
  ASSERT_TRUE(run.w1.EndWorker("").ok());
  EXPECT_EQ(harness_.GetRun().state(), v1::RUN_STATE_FINISHED);
}

TEST_P(RunLife, StopEndsIt) {
  StartedRun run(Channel());
  v1::StopRequest request;
  request.set_at_once(true);
  request.set_reason("the operator went home");
  v1::StopResponse response;
  ASSERT_TRUE(CallStub(run.w0.stub(), &Stub::Stop, request, &response).ok());
  const v1::EndOfRun end = run.w1.WaitEndOfRun();
  EXPECT_THAT(end.reason(), HasSubstr("the operator went home"));
  EXPECT_TRUE(end.stopped());
  EXPECT_FALSE(end.failed());
  EXPECT_EQ(harness_.GetRun().state(), v1::RUN_STATE_STOPPED);
  request.set_reason("and again");
  EXPECT_EQ(CallStub(run.w0.stub(), &Stub::Stop, request, &response).error_code(),
            grpc::StatusCode::FAILED_PRECONDITION);
  FakeWorker late(Channel(), "w7");
  EXPECT_TRUE(late.WaitEndOfRun().stopped()) << "it has nothing to do, which is no error";
}

TEST_P(RunLife, RepeatedReportsDecideNothingTwice) {
  StartedRun run(Channel());
  const v1::Verdict first = run.w0.Next().verdict();
  const v1::ReportIntervalRequest report = run.w0.MakeReport(0, 0, first);
  ASSERT_TRUE(run.w0.Report(report).ok());
  EXPECT_TRUE(run.w0.Report(report).ok());
  v1::ReportIntervalRequest other = report;
  other.set_step_s(0.5);
  EXPECT_EQ(run.w0.Report(other).code(), absl::StatusCode::kAlreadyExists);
  ASSERT_TRUE(run.w1.Report(run.w1.MakeReport(1, 0, first)).ok());
  EXPECT_TRUE(run.w0.Report(report).ok());
  EXPECT_EQ(harness_.GetRun().num_verdicts(), 3);
}

TEST_P(RunLife, AWorkerThatFailsBeforeTheRunStopsMakesItAFailure) {
  StartedRun run(Channel());
  v1::StopResponse response;
  ASSERT_TRUE(CallStub(run.w0.stub(), &Stub::Stop, v1::StopRequest(), &response).ok());
  const v1::Verdict first = run.w0.Next().verdict();
  ASSERT_TRUE(run.w0.Report(run.w0.MakeReport(0, 0, first)).ok());
  ASSERT_TRUE(run.w1.Report(run.w1.MakeReport(1, 0, first)).ok());
  ASSERT_TRUE(run.w1.EndWorker("no memory").ok());
  const v1::EndOfRun end = run.w0.WaitEndOfRun();
  EXPECT_THAT(end.reason(), HasSubstr("no memory"));
  EXPECT_FALSE(end.stopped());
  EXPECT_EQ(harness_.GetRun().state(), v1::RUN_STATE_FAILED);
}

TEST_P(RunLife, OneStreamCarriesManyReportsUntilOneIsRefused) {
  StartedRun run(Channel());
  const v1::Verdict first = run.w0.Next().verdict();
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
  const auto stream = run.w0.stub().ReportInterval(&context);
  v1::ReportIntervalResponse answer;
  for (const int64_t interval : {0, 1}) {
    ASSERT_TRUE(stream->Write(run.w0.MakeReport(0, interval, first)));
    ASSERT_TRUE(stream->Read(&answer));
    EXPECT_GT(answer.service_replied_ns(), answer.service_received_ns());
  }
  v1::ReportIntervalRequest wrong = run.w0.MakeReport(0, 2, first);
  wrong.set_step_s(-1);
  ASSERT_TRUE(stream->Write(wrong));
  EXPECT_FALSE(stream->Read(&answer));
  const grpc::Status status = stream->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("step_s"));
  ASSERT_TRUE(run.w1.Report(run.w1.MakeReport(1, 0, first)).ok());
  EXPECT_EQ(harness_.GetRun().num_verdicts(), 3);  // the two before it count
}

TEST_P(RunLife, DecisionsComeInPages) {
  StartedRun run(Channel());
  const v1::Verdict first = run.w0.Next().verdict();
  ASSERT_TRUE(run.w0.Report(run.w0.MakeReport(0, 0, first)).ok());
  ASSERT_TRUE(run.w1.Report(run.w1.MakeReport(1, 0, first)).ok());
  std::vector<int64_t> boundaries;
  v1::ListVerdictsRequest request;
  request.set_page_size(2);
  v1::ListVerdictsResponse response;
  do {
    response.Clear();
    ASSERT_TRUE(CallStub(run.w0.stub(), &Stub::ListVerdicts, request, &response).ok());
    for (const v1::Verdict& verdict : response.verdicts()) boundaries.push_back(verdict.boundary());
    request.set_page_token(response.next_page_token());
  } while (!response.next_page_token().empty());
  EXPECT_THAT(boundaries, ElementsAre(0, 1, 2));
  request.Clear();
  request.set_changes_only(true);
  response.Clear();
  ASSERT_TRUE(CallStub(run.w0.stub(), &Stub::ListVerdicts, request, &response).ok());
  ASSERT_GE(response.verdicts_size(), 1);
  for (const v1::Verdict& verdict : response.verdicts()) EXPECT_TRUE(verdict.has_plan());
}

TEST(FullDisk, StopsTheRunBeforeAnyoneHearsOfADecision) {
  HarnessOptions options;
  options.store = std::make_unique<FullStore>(2);  // the two joins fit
  ServiceHarness harness(std::move(options));
  StartedRun run(harness.InProcessChannel());
  const v1::Verdict first = run.w0.Next().verdict();
  const absl::Status refused = run.w0.Report(run.w0.MakeReport(0, 0, first));
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("No space left on device"));
  const v1::EndOfRun end = run.w1.WaitEndOfRun();
  EXPECT_FALSE(end.success());
  EXPECT_FALSE(end.failed())
      << "started again, with space on the disk, the service goes on with it";
  EXPECT_THAT(end.reason(), HasSubstr("cannot record its decisions: No space left on device"));
  EXPECT_FALSE(harness.service().failure().ok());
  EXPECT_EQ(harness.GetRun().state(), v1::RUN_STATE_RUNNING)
      << "it is open, as its next start says";
  EXPECT_THAT(harness.GetRun().message(), HasSubstr("No space left on device"));
  EXPECT_EQ(harness.GetRun().num_verdicts(), 2);
}

TEST(FullDisk, AVerdictThatIsNotOnDiskIsNotShown) {
  HarnessOptions options;
  options.store = std::make_unique<FullStore>(3);  // the two joins and one report fit
  ServiceHarness harness(std::move(options));
  StartedRun run(harness.InProcessChannel());
  const v1::Verdict first = run.w0.Next().verdict();
  ASSERT_TRUE(run.w0.Report(run.w0.MakeReport(0, 0, first)).ok());
  EXPECT_FALSE(run.w1.Report(run.w1.MakeReport(1, 0, first)).ok());
  EXPECT_EQ(harness.GetRun().num_verdicts(), 2);
  v1::ListVerdictsResponse response;
  ASSERT_TRUE(
      CallStub(run.w0.stub(), &Stub::ListVerdicts, v1::ListVerdictsRequest(), &response).ok());
  EXPECT_EQ(response.verdicts_size(), 2);
  EXPECT_TRUE(response.next_page_token().empty());
}

TEST(FullDisk, NoAssignmentIsSentThatIsNotOnDisk) {
  HarnessOptions options;
  options.store = std::make_unique<FullStore>(1);
  ServiceHarness harness(std::move(options));
  FakeWorker w0(harness.InProcessChannel(), "w0"), w1(harness.InProcessChannel(), "w1");
  w0.Next(), w1.Next();
  ASSERT_TRUE(w0.Announce().ok());
  EXPECT_EQ(w1.Announce().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(w0.NextBut(v1::JoinResponse::kWaiting).has_end_of_run());
  EXPECT_EQ(harness.GetRun().num_verdicts(), 0);
  EXPECT_FALSE(harness.GetRun().has_current());
}

}  // namespace
}  // namespace smartpipe
