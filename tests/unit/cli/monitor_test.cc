#include "cli/monitor.h"

#include <cstdlib>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "smartpipe/v1/freeze_service_mock.grpc.pb.h"

namespace smartpipe {
namespace {

using testing::_;
using testing::HasSubstr;
using testing::Invoke;
using testing::Not;

class RunMonitorTest : public testing::Test {
 protected:
  RunMonitorTest() {
    out_ = open_memstream(&text_, &size_);
    display_ = std::make_unique<Display>(out_, /*is_terminal=*/false, 79, absl::ZeroDuration());
    auto stub = std::make_unique<testing::NiceMock<v1::MockFreezeServiceStub>>();
    ON_CALL(*stub, GetRun(_, _, _))
        .WillByDefault(Invoke([this](auto*, auto&, v1::GetRunResponse* response) {
          *response->mutable_run() = run_;
          return answers_ ? grpc::Status::OK
                          : grpc::Status(grpc::StatusCode::UNAVAILABLE, "nobody there");
        }));
    ON_CALL(*stub, ListVerdicts(_, _, _))
        .WillByDefault(Invoke([this](auto*, auto& request, auto* response) {
          EXPECT_TRUE(request.changes_only());
          ++num_pages_asked_;
          if (!lists_) return grpc::Status(grpc::StatusCode::DEADLINE_EXCEEDED, "busy");
          // One per page, to see that all pages are read.
          const size_t next = request.page_token().empty() ? 0 : std::stoul(request.page_token());
          if (next < verdicts_.size()) *response->add_verdicts() = verdicts_[next];
          if (next + 1 < verdicts_.size()) response->set_next_page_token(std::to_string(next + 1));
          return grpc::Status::OK;
        }));
    monitor_ = std::make_unique<RunMonitor>(
        std::move(stub), display_.get(), [this] { return stop_asked_; },
        EvaluationPlan{.every_epochs = 1, .num_samples = 100});
    run_.set_state(v1::RUN_STATE_RUNNING);
    run_.set_num_steps(20);
    run_.set_steps_per_epoch(10);
    run_.set_batch_size(64);
    run_.set_samples_per_second(640);
    run_.mutable_current()->add_cuts(3);
    for (int i = 0; i < 7; ++i) run_.add_layers();
  }
  ~RunMonitorTest() override {
    std::fclose(out_);
    std::free(text_);
  }

  std::string Poll(int second = 0) {
    std::fflush(out_);
    const size_t before = size_;
    monitor_->Poll(absl::UnixEpoch() + absl::Seconds(second));
    std::fflush(out_);
    return std::string(text_ + before, size_ - before);
  }

  void AddVerdict(int64_t boundary, int32_t frontier, int32_t cut, const std::string& reason) {
    v1::Verdict verdict;
    verdict.set_boundary(boundary);
    verdict.set_step(boundary * 5);
    verdict.mutable_plan()->set_plan_epoch(static_cast<int64_t>(verdicts_.size()) + 1);
    verdict.set_plan_epoch(static_cast<int64_t>(verdicts_.size()) + 1);
    verdict.set_frontier(frontier);
    verdict.add_cuts(cut);
    verdict.set_reason(reason);
    verdicts_.push_back(verdict);
    run_.set_num_verdicts(boundary + 1);
  }

  void Finish() {
    run_.set_state(v1::RUN_STATE_FINISHED);
    run_.set_step(20);
    v1::EndWorkerRequest* first = run_.add_ended_workers();
    first->set_train_s(4);
    first->set_checkpoint_s(0.25);
    first->set_checkpoint_bytes_written(300);
    first->set_checkpoint_bytes_shared(20);
    v1::EndWorkerRequest* last = run_.add_ended_workers();
    last->set_train_s(3.5);
    last->set_verdict_wait_s(0.5);
    last->set_checkpoint_s(0.125);
    last->set_checkpoint_bytes_written(500);
    last->set_weights_sha256("ab");
    run_.set_train_loss(0.25);
  }

  char* text_ = nullptr;
  size_t size_ = 0;
  std::FILE* out_;
  std::unique_ptr<Display> display_;
  std::unique_ptr<RunMonitor> monitor_;
  v1::Run run_;
  std::vector<v1::Verdict> verdicts_;
  bool answers_ = true;
  bool lists_ = true;  // ListVerdicts answers
  bool stop_asked_ = false;
  int num_pages_asked_ = 0;
};

TEST_F(RunMonitorTest, SaysWhatTheRunWaitsFor) {
  run_.set_state(v1::RUN_STATE_WAITING);
  run_.set_message("1 of 2 workers: w0");
  EXPECT_EQ(Poll(), "Measuring layer times; ready: 1 of 2 workers: w0\n");
  EXPECT_EQ(Poll(), "");
}

TEST_F(RunMonitorTest, ProgressDecisionsAndEvaluationsOnceEach) {
  run_.set_step(5);
  run_.set_loss(0.5);
  EXPECT_EQ(Poll(),
            "epoch 1/2  step 5/20  loss 0.500  640 samples/s  frontier 0  cut 3  2 s to train\n");
  AddVerdict(2, 2, 4, "eta is low.");
  AddVerdict(3, 3, 4, "eta is lower.");
  v1::Evaluation* evaluation = run_.add_evaluations();
  evaluation->set_step(10);
  evaluation->set_accuracy(0.875);
  evaluation->set_loss(0.4);
  EXPECT_THAT(Poll(),
              testing::StartsWith("epoch 1 done (step 10): test accuracy 87.50 %, test loss 0.400\n"
                                  "from step 10 on: frontier 0 -> 2, cut 3 -> 4: eta is low.\n"
                                  "from step 15 on: frontier 2 -> 3: eta is lower.\n"));
  EXPECT_THAT(Poll(), Not(HasSubstr("eta")));
}

TEST_F(RunMonitorTest, EvaluationsAreNamedWhileTheyRun) {
  run_.set_step(10);
  EXPECT_EQ(Poll(), "step 10/20: evaluating 100 test samples\n");
  EXPECT_EQ(Poll(), "");
  run_.add_evaluations()->set_step(10);
  EXPECT_THAT(Poll(), HasSubstr("step 10/20  loss"));
  run_.set_step(20);
  EXPECT_EQ(Poll(), "step 20/20: evaluating 100 test samples\n");
  run_.add_evaluations()->set_step(20);
  EXPECT_THAT(Poll(), HasSubstr("the weights are being written"));
}

TEST_F(RunMonitorTest, ARunThatEndsWithinAnEpochSaysWhere) {
  run_.set_step(5);
  v1::Evaluation* evaluation = run_.add_evaluations();
  evaluation->set_step(5);
  EXPECT_THAT(Poll(), HasSubstr("stopped at epoch 0.50 (step 5): test accuracy"));
}

TEST_F(RunMonitorTest, OfVerdictsWithoutAPlanOnlyRefusalsAreShown) {
  run_.set_step(5);
  AddVerdict(2, 0, 3, "keep: the cuts are the best.");
  verdicts_.back().clear_plan();
  AddVerdict(3, 0, 3, "keep: too small a gain.");
  verdicts_.back().clear_plan();
  verdicts_.back().set_predicted_old_step_s(1);
  verdicts_.back().set_predicted_step_s(0.99);
  const std::string out = Poll();
  EXPECT_THAT(out, HasSubstr("step 15: keep: too small a gain.\n"));
  EXPECT_THAT(out, Not(HasSubstr("best")));
}

TEST_F(RunMonitorTest, SilenceIsToldOnceAndForgiven) {
  answers_ = false;
  EXPECT_EQ(Poll(0), "");
  EXPECT_EQ(Poll(9), "");
  EXPECT_EQ(Poll(10), "The freeze service has not answered for 10.0 s: nobody there\n");
  EXPECT_EQ(Poll(11), "");
  answers_ = true;
  run_.set_step(1);
  EXPECT_THAT(Poll(12), HasSubstr("step 1/20"));
}

TEST_F(RunMonitorTest, ResultOfAFinishedRun) {
  AddVerdict(2, 2, 4, "in force");
  AddVerdict(4, 3, 4, "too late: the run has 20 steps");
  Finish();
  Poll();
  ASSERT_TRUE(monitor_->finished());
  const auto result = monitor_->Result(RunConfig(), "runs/x", absl::Seconds(9));
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->steps, 20);
  EXPECT_EQ(result->epochs, 2);
  EXPECT_EQ(result->num_layers, 7);
  EXPECT_EQ(result->wall_seconds, 4);
  EXPECT_EQ(result->total_seconds, 9);
  EXPECT_EQ(result->samples_per_second, 320);
  EXPECT_EQ(result->verdict_wait_seconds, 0.5);
  EXPECT_EQ(result->train_loss, 0.25);
  EXPECT_EQ(result->weights_sha256, "ab");
  ASSERT_EQ(result->decisions.size(), 1u);
  EXPECT_EQ(result->decisions[0].reason, "in force");
}

TEST_F(RunMonitorTest, FinishedOnlyWhenAllDecisionsAreKnown) {
  AddVerdict(2, 2, 4, "eta is low.");
  Finish();
  lists_ = false;
  EXPECT_EQ(Poll(), "");
  EXPECT_EQ(monitor_->run().state(), v1::RUN_STATE_FINISHED);
  EXPECT_FALSE(monitor_->finished());
  EXPECT_THAT(std::string(monitor_->Result(RunConfig(), "x", absl::Seconds(9)).status().message()),
              HasSubstr("only 0 of its 3 decisions are known"));
  lists_ = true;
  EXPECT_THAT(Poll(), HasSubstr("eta is low."));
  EXPECT_TRUE(monitor_->finished());
  EXPECT_EQ(monitor_->Result(RunConfig(), "x", absl::Seconds(9))->decisions.size(), 1u);
}

TEST_F(RunMonitorTest, AfterAStopSignalNoFurtherRequestIsMade) {
  AddVerdict(2, 2, 4, "eta is low.");
  run_.set_step(5);
  stop_asked_ = true;
  Poll();
  EXPECT_EQ(num_pages_asked_, 0);
  stop_asked_ = false;
  EXPECT_THAT(Poll(), HasSubstr("eta is low."));
}

TEST_F(RunMonitorTest, AResultWithoutWeightsIsNoResult) {
  Finish();
  run_.mutable_ended_workers()->RemoveLast();
  Poll();
  EXPECT_THAT(std::string(monitor_->Result(RunConfig(), "x", absl::Seconds(9)).status().message()),
              HasSubstr("not all results are there (20 of 20 steps, 1 workers)"));
}

}  // namespace
}  // namespace smartpipe
