// The worker's session against the real service: a whole run, refusals, and every way to lose each
// other.
#include "worker/control/control_session.h"

#include <signal.h>

#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/component/freeze_service/service_harness.h"
#include "tests/testutil/process.h"

namespace smartpipe {
namespace {

using absl::StatusCode;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::StartsWith;

const RunShape kShape{
    .steps_per_epoch = 20, .num_steps = 40, .interval_steps = 10, .num_boundaries = 4};
constexpr absl::Duration kSoon = absl::Seconds(20);

std::unique_ptr<ControlSession> Connect(const std::string& address, const std::string& worker) {
  absl::StatusOr<std::unique_ptr<ControlSession>> session =
      ControlSession::Start({.service_address = address, .worker = WorkerId(worker)});
  EXPECT_TRUE(session.ok()) << session.status();
  return *std::move(session);
}

std::vector<LayerDescription> Layers() {
  std::vector<LayerDescription> layers;
  for (int i = 0; i < 4; ++i) {
    layers.push_back(
        {.name = absl::StrCat("block", i),
         .cost = {
             .forward_s = 1e-3, .input_grad_s = 1e-3, .weight_grad_s = 1e-3, .param_bytes = 100}});
  }
  return layers;
}

/// Two connected workers in a running run.
struct TwoWorkers {
  explicit TwoWorkers(const std::string& address)
      : w0(Connect(address, "w0")), w1(Connect(address, "w1")) {
    for (ControlSession* session : {w0.get(), w1.get()}) {
      EXPECT_TRUE(session->WaitWelcome().ok());
      const absl::Status announced = session->AnnounceLayers(Layers(), kShape, {});
      EXPECT_TRUE(announced.ok()) << announced;
    }
    EXPECT_TRUE(w0->WaitAssignment().ok());
    EXPECT_TRUE(w1->WaitAssignment().ok());
  }
  std::unique_ptr<ControlSession> w0, w1;
};

IntervalReportInfo MakeReport(int rank, int64_t interval, PlanEpoch epoch, int frontier) {
  IntervalReportInfo report{.generation = Generation(1),
                            .plan_epoch = epoch,
                            .interval = IntervalIndex(interval),
                            .layers = {}};
  for (int layer = 2 * rank; layer < 2 * rank + 2; ++layer) {
    report.layers.push_back({.layer = LayerIndex(layer),
                             .frozen = layer < frontier,
                             .grad_norm_l2 = layer < frontier ? 0 : 1.0,
                             .cost = {.forward_s = 1e-3}});
  }
  return report;
}

/// All steps of one worker; rank 1 also tells losses.
absl::Status PlayWorker(ControlSession& session, int rank) {
  PlanEpoch epoch;
  int frontier = 0;
  for (int64_t boundary = 0; boundary < 4; ++boundary) {
    absl::StatusOr<WorkerVerdict> verdict = session.WaitVerdict(IntervalIndex(boundary));
    if (!verdict.ok()) return verdict.status();
    EXPECT_EQ(verdict->step, Step(boundary * 10));
    if (verdict->plan)
      epoch = verdict->plan->plan_epoch, frontier = verdict->plan->frontier.value();
    for (int64_t step = boundary * 10; rank == 1 && step < boundary * 10 + 10; ++step) {
      session.ReportStep({.step = Step(step), .loss = 1.0, .step_s = 0.01});
    }
    session.Report(MakeReport(rank, boundary, epoch, frontier));
  }
  if (rank == 1)
    session.ReportEvaluation({.step = Step(40), .accuracy = 0.9, .loss = 0.3, .seconds = 1});
  return session.Finish({.train_s = 4, .weights_sha256 = rank == 1 ? std::string(64, 'a') : ""});
}

TEST(ControlSession, LivesThroughAWholeRun) {
  ServiceHarness harness;
  std::unique_ptr<ControlSession> w0 = Connect(harness.address(), "w0"),
                                  w1 = Connect(harness.address(), "w1");
  absl::StatusOr<RunWelcome> welcome = w0->WaitWelcome();
  ASSERT_TRUE(welcome.ok());
  EXPECT_EQ(welcome->run_id, "test");
  EXPECT_TRUE(ParseRunConfig(welcome->config_toml, "welcome").ok());
  ASSERT_TRUE(w0->AnnounceLayers(Layers(), kShape, {}).ok());
  ASSERT_TRUE(w1->AnnounceLayers(Layers(), kShape, {}).ok());
  absl::StatusOr<WorkerAssignment> assignment = w1->WaitAssignment();
  ASSERT_TRUE(assignment.ok());
  EXPECT_EQ(assignment->generation, Generation(1));
  EXPECT_EQ(assignment->rank, Rank(1));
  EXPECT_THAT(assignment->members, ElementsAre(WorkerId("w0"), WorkerId("w1")));
  EXPECT_THAT(assignment->plan.cuts, ElementsAre(LayerIndex(2)));

  absl::Notification ended;
  absl::Status why = absl::UnknownError("not called");
  w0->OnEnd([&](const absl::Status& status) {
    why = status;
    ended.Notify();
  });
  absl::Status played0, played1;
  std::thread thread([&] { played0 = PlayWorker(*w0, 0); });
  played1 = PlayWorker(*w1, 1);
  thread.join();
  EXPECT_TRUE(played0.ok()) << played0;
  EXPECT_TRUE(played1.ok()) << played1;
  ASSERT_TRUE(ended.WaitForNotificationWithTimeout(kSoon));
  EXPECT_TRUE(why.ok()) << why;
  EXPECT_TRUE(w1->WaitEnd(kSoon).ok());

  const v1::Run run = harness.GetRun();
  EXPECT_EQ(run.state(), v1::RUN_STATE_FINISHED);
  EXPECT_EQ(run.step(), 40);
  ASSERT_EQ(run.evaluations_size(), 1);
  EXPECT_EQ(run.evaluations(0).accuracy(), 0.9);
  ASSERT_EQ(run.ended_workers_size(), 2);
  EXPECT_EQ(run.ended_workers(1).weights_sha256(), std::string(64, 'a'));
  EXPECT_EQ(run.current().frontier(), 1);
}

TEST(ControlSession, VerdictsAreKeptUntilTheNextIsAskedFor) {
  ServiceHarness harness;
  TwoWorkers workers(harness.address());
  ASSERT_TRUE(workers.w0->WaitVerdict(IntervalIndex(0), kSoon).ok());
  EXPECT_EQ(workers.w0->WaitVerdict(IntervalIndex(0), kSoon)->boundary, IntervalIndex(0));
  ASSERT_TRUE(workers.w0->WaitVerdict(IntervalIndex(1), kSoon).ok());
  EXPECT_EQ(workers.w0->PeekVerdict(IntervalIndex(1))->boundary, IntervalIndex(1));
  EXPECT_FALSE(workers.w0->PeekVerdict(IntervalIndex(2))) << "it follows from reports";
  EXPECT_EQ(workers.w0->WaitVerdict(IntervalIndex(0), kSoon).status().code(),
            StatusCode::kFailedPrecondition);
  const absl::Status late =
      workers.w0->WaitVerdict(IntervalIndex(2), absl::Milliseconds(1)).status();
  EXPECT_EQ(late.code(), StatusCode::kDeadlineExceeded);
  EXPECT_THAT(std::string(late.message()), HasSubstr("gave no verdict for boundary 2 within 1ms"));
}

TEST(ControlSession, TheKeyValueStoreReachesAllWorkers) {
  ServiceHarness harness;
  TwoWorkers workers(harness.address());
  std::shared_ptr<KeyValueStore> a = workers.w0->MakeKeyValueStore(Generation(1));
  std::shared_ptr<KeyValueStore> b = workers.w1->MakeKeyValueStore(Generation(1));
  const std::string binary("\x00\xff key", 6);
  std::thread setter([&] { EXPECT_TRUE(a->Set(binary, binary).ok()); });
  EXPECT_EQ(b->Get(binary, kSoon).value(), binary);
  setter.join();
  EXPECT_EQ(a->Add("n", 2).value(), 2);
  EXPECT_EQ(b->Add("n", 3).value(), 5);
  EXPECT_EQ(b->CompareAndSet("c", "", "x").value(), "x");
  EXPECT_TRUE(a->Check({"n", "c"}).value());
  EXPECT_TRUE(a->Wait({"n", "c"}, kSoon).ok());
  EXPECT_EQ(a->NumKeys().value(), 3);
  EXPECT_TRUE(a->Delete("n").value());
  const absl::Status missing = a->Wait({"c", "n"}, absl::Milliseconds(50));
  EXPECT_EQ(missing.code(), StatusCode::kDeadlineExceeded);
  EXPECT_THAT(std::string(missing.message()), HasSubstr("n"));
  EXPECT_EQ(workers.w0->MakeKeyValueStore(Generation(7))->NumKeys().status().code(),
            StatusCode::kFailedPrecondition);
  std::thread waiter(
      [&] { EXPECT_EQ(a->Get("never", kSoon).status().code(), StatusCode::kCancelled); });
  a->Cancel();
  waiter.join();
  EXPECT_EQ(a->NumKeys().status().code(), StatusCode::kCancelled);
}

TEST(ControlSession, NobodyAtTheAddress) {
  std::string address;
  {
    ServiceHarness harness;
    address = harness.address();
  }
  const absl::Status status = ControlSession::Start({.service_address = address,
                                                     .worker = WorkerId("w0"),
                                                     .connect_timeout = absl::Milliseconds(300)})
                                  .status();
  EXPECT_EQ(status.code(), StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()),
              StartsWith(absl::StrCat("cannot reach the freeze service: nobody answers at ",
                                      address, " within 300ms")));
}

TEST(ControlSession, AnIdInUseIsRefused) {
  ServiceHarness harness;
  std::unique_ptr<ControlSession> first = Connect(harness.address(), "w0");
  ASSERT_TRUE(first->WaitWelcome().ok());
  std::unique_ptr<ControlSession> second = Connect(harness.address(), "w0");
  const absl::Status refused = second->WaitWelcome().status();
  EXPECT_EQ(refused.code(), StatusCode::kAlreadyExists);
  EXPECT_THAT(std::string(refused.message()),
              HasSubstr("refused this worker: a worker with the id w0 is connected"));
  EXPECT_TRUE(first->AnnounceLayers(Layers(), kShape, {}).ok());
}

TEST(ControlSession, ADifferentModelIsRefusedAndTheSessionGoesOn) {
  ServiceHarness harness;
  std::unique_ptr<ControlSession> w0 = Connect(harness.address(), "w0"),
                                  w1 = Connect(harness.address(), "w1");
  ASSERT_TRUE(w0->WaitWelcome().ok() && w1->WaitWelcome().ok());
  ASSERT_TRUE(w0->AnnounceLayers(Layers(), kShape, {}).ok());
  std::vector<LayerDescription> other = Layers();
  other[3].name = "classifier";
  const absl::Status refused = w1->AnnounceLayers(other, kShape, {});
  EXPECT_EQ(refused.code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("classifier"));
  EXPECT_TRUE(w1->AnnounceLayers(Layers(), kShape, {}).ok());
  EXPECT_TRUE(w1->WaitAssignment().ok());
}

TEST(ControlSession, ARefusedReportEndsTheSessionWithTheReason) {
  ServiceHarness harness;
  TwoWorkers workers(harness.address());
  IntervalReportInfo report = MakeReport(0, 0, PlanEpoch(0), 0);
  report.layers.pop_back();
  workers.w0->Report(report);
  const absl::Status end = workers.w0->WaitEnd(kSoon);
  EXPECT_EQ(end.code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(end.message()), HasSubstr("the freeze service refused a report"));
  EXPECT_EQ(workers.w0->WaitVerdict(IntervalIndex(0), kSoon).status(), end);
  // The service and the other worker hear it in this worker's words, not as a broken connection.
  EXPECT_THAT(workers.w1->WaitEnd(kSoon).ToString(), HasSubstr(std::string(end.message())));
  EXPECT_THAT(harness.GetRun().message(), HasSubstr(std::string(end.message())));
  EXPECT_THAT(harness.GetRun().message(), HasSubstr("w0"));
  workers.w0->Fail(end);  // as a worker does that hears of its end: says nothing more
  ASSERT_EQ(harness.GetRun().ended_workers_size(), 1);
}

TEST(ControlSession, AnotherWorkersLossEndsTheGenerationAtOnce) {
  ServiceHarness harness;
  TwoWorkers workers(harness.address());
  std::shared_ptr<KeyValueStore> store = workers.w0->MakeKeyValueStore(Generation(1));
  absl::Status pending;
  std::thread waiter([&] { pending = store->Get("never", absl::Minutes(5)).status(); });
  const absl::Time start = absl::Now();
  workers.w1.reset();  // without Finish: lost
  const absl::Status end = workers.w0->WaitVerdict(IntervalIndex(3), kSoon).status();
  waiter.join();
  EXPECT_LT(absl::Now() - start, absl::Seconds(2));
  EXPECT_EQ(end.code(), StatusCode::kAborted);
  EXPECT_THAT(std::string(end.message()), HasSubstr("the generation ended: "));
  EXPECT_THAT(std::string(end.message()), HasSubstr("w1"));
  EXPECT_THAT(pending.ToString(), HasSubstr("w1"));
  EXPECT_EQ(workers.w0->Finish({}), end);
  EXPECT_TRUE(workers.w0->generation_over());
  EXPECT_TRUE(workers.w0->LeaveGeneration(end).ok());
  bool called = false;
  workers.w0->OnEnd([&](const absl::Status& why) { called = why == end; });
  EXPECT_TRUE(called);

  // The next one, with another process in the place of the lost one.
  const std::unique_ptr<ControlSession> w1 = Connect(harness.address(), "w1");
  ASSERT_TRUE(w1->WaitWelcome().ok());
  for (ControlSession* session : {workers.w0.get(), w1.get()})
    ASSERT_TRUE(session->AnnounceLayers(Layers(), kShape, {}).ok());
  const absl::StatusOr<WorkerAssignment> assignment = workers.w0->WaitAssignment();
  ASSERT_TRUE(assignment.ok()) << assignment.status();
  EXPECT_EQ(assignment->generation, Generation(2));
  EXPECT_EQ(assignment->first_step, Step(0));
  EXPECT_FALSE(workers.w0->generation_over());
  EXPECT_TRUE(workers.w0->WaitVerdict(IntervalIndex(1), kSoon).ok());
}

TEST(ControlSession, WithoutRecoveryAnotherWorkersLossEndsTheRun) {
  ServiceHarness harness({.config = absl::StrCat(kTestConfig, "[recovery]\nenabled = false\n")});
  TwoWorkers workers(harness.address());
  workers.w1.reset();
  const absl::Status end = workers.w0->WaitEnd(kSoon);
  EXPECT_EQ(end.code(), StatusCode::kAborted);
  EXPECT_THAT(std::string(end.message()), HasSubstr("the run has failed: "));
  EXPECT_THAT(std::string(end.message()), HasSubstr("w1"));
  EXPECT_EQ(workers.w0->Finish({}), end);
  EXPECT_EQ(workers.w0->run_end(), RunEnd::kFailed);
  // The other one's next process hears the same, and takes it for no failure of its own.
  const std::unique_ptr<ControlSession> w1 = Connect(harness.address(), "w1");
  EXPECT_EQ(w1->WaitWelcome().status(), end);
  EXPECT_EQ(w1->run_end(), RunEnd::kFailed);
}

TEST(ControlSession, AFaultEndsTheGenerationForAll) {
  ServiceHarness harness;
  TwoWorkers workers(harness.address());
  EXPECT_TRUE(workers.w0->LeaveGeneration(absl::UnavailableError("rank 1 is gone: \xff")).ok());
  const absl::Status end = workers.w1->WaitVerdict(IntervalIndex(3), kSoon).status();
  EXPECT_EQ(end.code(), StatusCode::kAborted);
  EXPECT_THAT(std::string(end.message()), HasSubstr("cannot go on: rank 1 is gone: ?"));
  // Whoever is late is told the same.
  EXPECT_TRUE(workers.w1->LeaveGeneration(absl::UnavailableError("rank 0 is gone")).ok());
  EXPECT_EQ(harness.GetRun().num_recoveries(), 1);
}

TEST(ControlSession, AFaultBeforeTheFirstGenerationIsThisWorkersOwn) {
  ServiceHarness harness;
  const std::unique_ptr<ControlSession> w0 = Connect(harness.address(), "w0");
  ASSERT_TRUE(w0->WaitWelcome().ok());
  const absl::Status why = absl::UnavailableError("the parameter service does not answer");
  EXPECT_EQ(w0->LeaveGeneration(why), why);
  EXPECT_EQ(harness.GetRun().state(), v1::RUN_STATE_WAITING);
}

TEST(ControlSession, AFailureIsToldInItsOwnWords) {
  ServiceHarness harness;
  TwoWorkers workers(harness.address());
  workers.w1->Fail(absl::InternalError("the loss is gone: \xff"));
  EXPECT_THAT(workers.w0->WaitEnd(kSoon).ToString(), HasSubstr("the loss is gone: ?"));
}

TEST(ControlSession, AnEchoOfAnotherWorkersDeathIsNotTakenForTheCause) {
  ServiceHarness harness({.config = absl::StrCat(kTestConfig, "[recovery]\nenabled = false\n")});
  TwoWorkers workers(harness.address());
  std::thread echo(
      [&] { workers.w0->Fail(absl::UnavailableError("rank 1 closed the connection")); });
  workers.w1.reset();
  echo.join();
  EXPECT_THAT(harness.GetRun().message(), HasSubstr("its connection broke"));
  EXPECT_THAT(harness.GetRun().message(), HasSubstr("w1"));
}

TEST(ControlSession, DestroyingItBeforeAnythingHappenedIsFine) {
  ServiceHarness harness;
  std::unique_ptr<ControlSession> session = Connect(harness.address(), "w0");
  std::shared_ptr<KeyValueStore> store = session->MakeKeyValueStore(Generation(1));
  session.reset();
  EXPECT_EQ(store->NumKeys().status().code(), StatusCode::kCancelled);
}

/// A service as a process that can be killed or stopped.
class ServiceProcess {
 public:
  ServiceProcess() {
    testutil::WriteFile(dir_.File("run.toml"), kTestConfig);
    Start("127.0.0.1:0");
  }
  const std::string& address() const { return address_; }
  void Signal(int signal) { process_->Signal(signal); }
  /// On the same port.
  void StartAgain(int signal) {
    process_->Signal(signal);
    EXPECT_TRUE(process_->Wait(kSoon).has_value());
    Start(address_);
  }

 private:
  void Start(const std::string& listen) {
    process_ = std::make_unique<testutil::Process>(std::vector<std::string>{
        testutil::Binary("freeze_service"), "--config", dir_.File("run.toml"), "--run-dir",
        dir_.path(), "--listen", listen, "--ready-fd", "1"});
    address_ = absl::StrCat("127.0.0.1:", testutil::AnnouncedPort(*process_));
  }
  testutil::TempDir dir_;
  std::unique_ptr<testutil::Process> process_;
  std::string address_;
};

/// `signal` hits the service while a verdict and a key are waited for and reports are on their way.
void LoseService(int signal, absl::Duration at_most) {
  ServiceProcess service;
  TwoWorkers workers(service.address());
  for (ControlSession* session : {workers.w0.get(), workers.w1.get()})
    session->set_decision_timeout(absl::Seconds(1));
  std::shared_ptr<KeyValueStore> store = workers.w0->MakeKeyValueStore(Generation(1));
  absl::Notification ended;
  workers.w0->OnEnd([&](const absl::Status&) { ended.Notify(); });
  absl::Status key, verdict;
  std::thread key_waiter([&] { key = store->Get("never", absl::Minutes(5)).status(); });
  std::thread verdict_waiter(
      [&] { verdict = workers.w0->WaitVerdict(IntervalIndex(3), absl::Minutes(5)).status(); });
  const absl::Time start = absl::Now();
  service.Signal(signal);
  workers.w1->Report(MakeReport(1, 0, PlanEpoch(0), 0));
  const absl::Status finish = workers.w1->Finish({});
  key_waiter.join();
  verdict_waiter.join();
  EXPECT_TRUE(ended.WaitForNotificationWithTimeout(kSoon));
  EXPECT_LT(absl::Now() - start, at_most);
  const std::string words = absl::StrCat("the freeze service at ", service.address(), " is gone: ");
  for (const absl::Status& status :
       {key, verdict, finish, workers.w0->WaitEnd(kSoon), workers.w1->WaitEnd(kSoon)}) {
    EXPECT_EQ(status.code(), StatusCode::kUnavailable) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(words));
  }
}

TEST(ControlSession, AKilledServiceIsWaitedForAndThenGone) {
  LoseService(SIGKILL, absl::Seconds(4));
}

TEST(ControlSession, AServiceThatStandsStillIsNoticedByKeepalive) {
  LoseService(SIGSTOP, absl::Seconds(12));
}

TEST(ControlSession, ARunGoesOnOverAServiceThatIsKilledOrToldToStop) {
  for (const int signal : {SIGKILL, SIGTERM}) {
    ServiceProcess service;
    TwoWorkers workers(service.address());
    workers.w0->Report(MakeReport(0, 0, PlanEpoch(0), 0));
    ASSERT_TRUE(workers.w0->WaitReported().ok());
    service.StartAgain(signal);
    workers.w1->Report(MakeReport(1, 0, PlanEpoch(0), 0));
    for (ControlSession* session : {workers.w0.get(), workers.w1.get()}) {
      const absl::StatusOr<WorkerVerdict> verdict = session->WaitVerdict(IntervalIndex(2), kSoon);
      ASSERT_TRUE(verdict.ok()) << verdict.status();
      ASSERT_TRUE(verdict->plan.has_value());
      EXPECT_EQ(verdict->plan->frontier, LayerIndex(1));
      EXPECT_FALSE(session->generation_over());
    }
  }
}

}  // namespace
}  // namespace smartpipe
