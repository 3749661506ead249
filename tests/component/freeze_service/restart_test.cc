// The freeze_service program, killed as by kill -9 at each of its fault points and started again on
// the same log.
#include <signal.h>

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "freeze_service/core/replay.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "services/rpc/channel.h"
#include "tests/component/freeze_service/service_harness.h"
#include "tests/testutil/process.h"

namespace smartpipe {
namespace {

using testing::HasSubstr;
using testutil::Process;
using Stub = v1::FreezeService::Stub;

constexpr int64_t kIntervals = 4;                 // of kTestConfig
constexpr int64_t kRecords = 4 + 2 * kIntervals;  // joins, reports, ends

/// A run of two workers over a service that may die in any call.
class ServedRun {
 public:
  ServedRun() { testutil::WriteFile(dir_.File("run.toml"), kTestConfig); }

  const std::string& dir() const { return dir_.path(); }
  Process& process() { return *process_; }
  FakeWorker& worker(int rank) { return *workers_[rank]; }

  void StartService(const std::string& die_at) {
    workers_.clear();
    std::vector<std::string> argv = {testutil::Binary("freeze_service"),
                                     "--config",
                                     dir_.File("run.toml"),
                                     "--run-dir",
                                     dir_.path(),
                                     "--listen",
                                     "127.0.0.1:0",
                                     "--ready-fd",
                                     "1"};
    if (!die_at.empty()) argv.insert(argv.end(), {"--die-at", die_at});
    process_ = std::make_unique<Process>(argv);
    const std::shared_ptr<grpc::Channel> channel =
        MakeChannel({.address = absl::StrCat("127.0.0.1:", testutil::AnnouncedPort(*process_)),
                     .keepalive = {}});
    for (const char* id : {"w0", "w1"})
      workers_.push_back(std::make_unique<FakeWorker>(channel, id));
  }

  /// The whole run from where the service stands, until a call fails.
  absl::Status Play() {
    if (GetRun().state() == v1::RUN_STATE_WAITING) {
      for (const auto& worker : workers_) {
        if (!worker->Welcomed()) return absl::UnavailableError("no welcome");
        if (absl::Status status = worker->Announce(); !status.ok()) return status;
      }
    }
    for (; interval_ < kIntervals; ++interval_, next_rank_ = 0) {
      const std::vector<v1::Verdict> verdicts = ListVerdicts();
      if (static_cast<int64_t>(verdicts.size()) <= interval_)
        return absl::UnavailableError("no verdict");
      for (; next_rank_ < 2; ++next_rank_) {
        FakeWorker& reporter = worker(next_rank_);
        const absl::Status reported =
            reporter.Report(reporter.MakeReport(next_rank_, interval_, verdicts[interval_]));
        if (!reported.ok()) return reported;
      }
    }
    for (; num_ended_ < 2; ++num_ended_) {
      v1::EndWorkerRequest request;
      request.set_worker_id(worker(num_ended_).id());
      request.set_generation(1);
      request.set_train_s(1.5);
      request.set_checkpoint_s(0.25);
      request.set_checkpoint_bytes_written(4096);
      request.set_checkpoint_bytes_shared(512);
      if (absl::Status status = worker(num_ended_).EndWorker(request); !status.ok()) return status;
    }
    return absl::OkStatus();
  }

  v1::Run GetRun() {
    v1::GetRunResponse response;
    (void)CallStub(worker(0).stub(), &Stub::GetRun, v1::GetRunRequest(), &response);
    return response.run();
  }

  std::vector<v1::Verdict> ListVerdicts() {
    v1::ListVerdictsResponse response;
    (void)CallStub(worker(0).stub(), &Stub::ListVerdicts, v1::ListVerdictsRequest(), &response);
    return {response.verdicts().begin(), response.verdicts().end()};
  }

  /// Adds the verdicts that the workers were sent before the service died.
  void Hear(std::map<int64_t, std::string>* heard) {
    for (const auto& worker : workers_) {
      for (const v1::Verdict& verdict : worker->RestOfVerdicts())
        heard->emplace(verdict.boundary(), verdict.SerializeAsString());
    }
  }

 private:
  testutil::TempDir dir_;
  std::unique_ptr<Process> process_;
  std::vector<std::unique_ptr<FakeWorker>> workers_;
  // What comes next.
  int64_t interval_ = 0;
  int next_rank_ = 0;
  int num_ended_ = 0;
};

/// As the workers hear them: without eta.
std::vector<std::string> Serialized(std::vector<v1::Verdict> verdicts) {
  std::vector<std::string> texts;
  for (v1::Verdict& verdict : verdicts) {
    verdict.clear_eta();
    texts.push_back(verdict.SerializeAsString());
  }
  return texts;
}

// Each boundary has one line, in order, and the log proves itself.
void CheckLog(const std::string& dir) {
  int64_t num_verdicts = 0, num_ends = 0;
  for (absl::string_view line :
       absl::StrSplit(testutil::ReadFile(dir + "/decisions.jsonl"), '\n', absl::SkipEmpty())) {
    const auto json = nlohmann::json::parse(line);
    if (json["type"] == "verdict") {
      EXPECT_EQ(json["boundary"], num_verdicts++);
    }
    num_ends += json["type"] == "end_run";
  }
  EXPECT_EQ(num_verdicts, kIntervals);
  EXPECT_EQ(num_ends, 1);
  const absl::StatusOr<RecordedRun> run = OpenRecordedRun(dir);
  ASSERT_TRUE(run.ok()) << run.status();
  EXPECT_EQ(run->damage, "");
  const auto coordinator = *Coordinator::Create(*MakeCoordinatorOptions(run->settings));
  const absl::Status read = run->store->Read(0, [&](const EventRecord& record) {
    EXPECT_EQ(Replay(record, *coordinator), "") << "record " << record.sequence;
    return absl::OkStatus();
  });
  EXPECT_TRUE(read.ok()) << read;
  EXPECT_EQ(coordinator->state(), RunState::kFinished);
}

TEST(Restart, NothingIsDecidedTwiceOrLostWhereverTheServiceDies) {
  std::vector<std::string> undisturbed;
  {
    ServedRun run;
    run.StartService("");
    ASSERT_TRUE(run.Play().ok());
    undisturbed = Serialized(run.ListVerdicts());
    ASSERT_EQ(static_cast<int64_t>(undisturbed.size()), kIntervals);
    CheckLog(run.dir());
  }
  size_t num_heard = 0;
  for (const std::string point : {"before_append", "after_append", "after_publish"}) {
    for (int64_t record = 0; record < kRecords && !testing::Test::HasFailure(); ++record) {
      const std::string die_at = absl::StrCat(point, ":", record);
      SCOPED_TRACE(die_at);
      ServedRun run;
      run.StartService(die_at);
      EXPECT_FALSE(run.Play().ok());
      EXPECT_EQ(run.process().Wait(absl::Seconds(10)), 128 + SIGKILL) << run.process().output();
      std::map<int64_t, std::string> heard;
      run.Hear(&heard);
      num_heard += heard.size();
      run.StartService("");
      const absl::Status played = run.Play();
      ASSERT_TRUE(played.ok()) << played << "\n" << run.process().output();
      EXPECT_EQ(Serialized(run.ListVerdicts()), undisturbed);
      for (const auto& [boundary, verdict] : heard) EXPECT_EQ(verdict, undisturbed[boundary]);
      const v1::Run state = run.GetRun();
      EXPECT_EQ(state.state(), v1::RUN_STATE_FINISHED);
      ASSERT_EQ(state.ended_workers_size(), 2);
      for (const v1::EndWorkerRequest& ended : state.ended_workers()) {
        EXPECT_EQ(ended.train_s(), 1.5);
        EXPECT_EQ(ended.checkpoint_s(), 0.25);
        EXPECT_EQ(ended.checkpoint_bytes_written(), 4096);
        EXPECT_EQ(ended.checkpoint_bytes_shared(), 512);
      }
      CheckLog(run.dir());
    }
  }
  // What was published last may not have left the process.
  EXPECT_GT(num_heard, 0);
}

TEST(Restart, WorkersThatHadOnlyJoinedMustJoinAgain) {
  ServedRun run;
  run.StartService("");
  ASSERT_TRUE(run.worker(0).Welcomed());
  ASSERT_TRUE(run.worker(0).Announce().ok());
  run.process().Signal(SIGKILL);
  EXPECT_EQ(run.process().Wait(absl::Seconds(10)), 128 + SIGKILL);
  run.StartService("");
  EXPECT_THAT(run.GetRun().message(), HasSubstr("0 of 2 workers"));
  ASSERT_TRUE(run.Play().ok());
  CheckLog(run.dir());
}

TEST(Restart, ARunThatIsOverStaysOver) {
  ServedRun run;
  run.StartService("");
  ASSERT_TRUE(run.Play().ok());
  run.process().Signal(SIGTERM);
  EXPECT_EQ(run.process().Wait(absl::Seconds(10)), 0) << run.process().output();
  run.StartService("");
  EXPECT_EQ(run.GetRun().state(), v1::RUN_STATE_FINISHED);
  EXPECT_EQ(run.GetRun().message(), "all 2 workers finished");
  // Whoever comes late hears that nothing is left to do, and may do nothing.
  EXPECT_TRUE(run.worker(0).WaitEndOfRun().success());
  EXPECT_FALSE(run.worker(0).Announce().ok());
}

TEST(Restart, DamageIsNamedInTheServicesLog) {
  ServedRun run;
  run.StartService("");
  ASSERT_TRUE(run.Play().ok());
  run.process().Signal(SIGTERM);
  EXPECT_EQ(run.process().Wait(absl::Seconds(10)), 0);
  const std::string path = run.dir() + "/decisions.db";
  std::string bytes = testutil::ReadFile(path);
  const size_t words = bytes.rfind("the frontier to 1");  // in the newest verdict's reason
  ASSERT_NE(words, std::string::npos);
  bytes[words] = 'T';
  testutil::WriteFile(path, bytes);
  run.StartService("");
  EXPECT_THAT(run.process().output(), HasSubstr(path + ": record "));
  EXPECT_THAT(run.process().output(), HasSubstr(" is damaged (its digest is wrong); "));
  EXPECT_EQ(run.GetRun().state(), v1::RUN_STATE_RUNNING);
}

TEST(Restart, AMisspeltFaultPointIsRefused) {
  Process process({testutil::Binary("freeze_service"), "--config",
                   testutil::SourceFile("examples/fashion_mnist.toml"), "--run-dir", "/tmp",
                   "--die-at", "append:1"});
  EXPECT_EQ(process.Wait(absl::Seconds(10)), 1);
  EXPECT_THAT(process.output(), HasSubstr("--die-at is \"append:1\"; it must be before_append"));
}

}  // namespace
}  // namespace smartpipe
