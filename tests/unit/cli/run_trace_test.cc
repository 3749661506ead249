#include "cli/run_trace.h"

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testutil/process.h"
#include "tests/unit/cli/synthetic_run.h"

namespace smartpipe {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::SizeIs;
using testutil::CostMs;
using testutil::MakePlan;
using testutil::ReadFile;
using testutil::TempDir;
using testutil::WriteFile;

class LoadRunTraceTest : public testing::Test {
 protected:
  void SetUp() override {
    testutil::WriteRun({.stretches = {{.plan = MakePlan(0, {4}),
                                       .costs = {CostMs(1, 0, 1), CostMs(1, 1, 1)},
                                       .num_steps = 3}}},
                       dir_.path());
  }
  std::string Trace(int rank) const { return dir_.File(absl::StrCat("trace-w", rank, ".jsonl")); }
  std::string Error() const { return std::string(LoadRunTrace(dir_.path()).status().message()); }

  const TempDir dir_;
};

TEST_F(LoadRunTraceTest, AWholeRun) {
  const absl::StatusOr<RunTrace> run = LoadRunTrace(dir_.path());
  ASSERT_TRUE(run.ok()) << run.status();
  ASSERT_THAT(run->workers, SizeIs(2));
  EXPECT_EQ(run->first_step, 0);
  EXPECT_EQ(run->end_step, 3);
  EXPECT_EQ(run->workers[1].header.worker, "w1");
  EXPECT_EQ(run->workers[1].same_clock_as, "w0");
  EXPECT_FALSE(run->workers[1].clock_measured);
  EXPECT_EQ(run->workers[0].steps[0].events[0].start_ns, 0) << "times start at the first event";
  EXPECT_GT(run->StepEndNs(2), run->StepEndNs(1));
  EXPECT_EQ(run->StepEndNs(3), -1);
  EXPECT_THAT(run->PlanAt(2).cuts, ElementsAre(4));
  EXPECT_THAT(run->notes, ElementsAre(HasSubstr("decisions.jsonl is missing")));
}

TEST_F(LoadRunTraceTest, TheNewestGenerationCounts) {
  const std::string older =
      absl::StrReplaceAll(ReadFile(Trace(1)), {{"\"worker\":\"w1\"", "\"worker\":\"w2\""},
                                               {"\"rank\":1", "\"rank\":2"},
                                               {"\"num_ranks\":2", "\"num_ranks\":3"},
                                               {"\"generation\":1", "\"generation\":0"}});
  WriteFile(dir_.File("trace-w2.jsonl"), older);
  WriteFile(dir_.File("decisions.jsonl"),
            R"({"type": "verdict", "step": 0, "reason": "first"}
{"type": "verdict", "step": 20, "reason": "of generation 0"}
{"type": "end_generation", "generation": 0}
{"type": "verdict", "step": 0, "reason": "anew"}
)");
  const absl::StatusOr<RunTrace> run = LoadRunTrace(dir_.path());
  ASSERT_TRUE(run.ok()) << run.status();
  EXPECT_THAT(run->workers, SizeIs(2));
  EXPECT_THAT(run->notes, ElementsAre(HasSubstr("trace-w2.jsonl is of generation 0, not of 1")));
  ASSERT_THAT(run->decisions, SizeIs(2));
  EXPECT_EQ(run->decisions[0].reason, "anew");
  EXPECT_EQ(run->decisions[1].reason, "of generation 0");
}

TEST_F(LoadRunTraceTest, AKilledRun) {
  std::string text = ReadFile(Trace(1));
  text.resize(text.size() - 20);
  WriteFile(Trace(1), text);
  const absl::StatusOr<RunTrace> run = LoadRunTrace(dir_.path());
  ASSERT_TRUE(run.ok()) << run.status();
  EXPECT_THAT(run->workers[1].steps, SizeIs(2));
  EXPECT_EQ(run->end_step, 3);
  EXPECT_EQ(run->StepEndNs(2), -1);
  EXPECT_THAT(run->notes, Contains("the trace of w1 ends at step 1, others go on to step 2; only "
                                   "steps that all workers have count"));
}

TEST_F(LoadRunTraceTest, AFrozenStagesTraceEndsEarly) {
  testutil::WriteRun({.stretches = {{.plan = MakePlan(4, {4}),
                                     .costs = {CostMs(1, 0, 0), CostMs(1, 1, 1)},
                                     .num_steps = 4}}},
                     dir_.path());
  std::string text = ReadFile(Trace(0));
  text.erase(text.rfind('\n', text.size() - 2) + 1);
  WriteFile(Trace(0), text);
  absl::StatusOr<RunTrace> run = LoadRunTrace(dir_.path());
  ASSERT_TRUE(run.ok()) << run.status();
  EXPECT_GT(run->StepEndNs(2), 0);
  EXPECT_EQ(run->StepEndNs(3), -1) << "worker 0's part is missing";
  EXPECT_THAT(run->notes, Contains(HasSubstr("the trace of w0 ends at step 2, others go on to")));
  run->workers[0].steps[2].events.pop_back();
  run->workers[0].steps[2].events.pop_back();
  EXPECT_EQ(run->StepEndNs(2), -1) << "its last forward is missing";
}

TEST_F(LoadRunTraceTest, NoRunAndNoTraces) {
  EXPECT_THAT(std::string(LoadRunTrace(dir_.File("no")).status().message()),
              HasSubstr("there is no run directory"));
  std::filesystem::remove(Trace(0));
  std::filesystem::remove(Trace(1));
  EXPECT_THAT(Error(), HasSubstr("--set worker.trace=true"));
  for (const char* name : {"smartpipe", "full", "logs"})
    std::filesystem::create_directory(dir_.File(name));
  EXPECT_THAT(Error(), HasSubstr("--set worker.trace=true"));
  WriteFile(dir_.File("full/trace-w0.jsonl"), "");
  WriteFile(dir_.File("smartpipe/trace-w0.jsonl"), "");
  EXPECT_EQ(Error(), absl::StrCat(dir_.path(), " holds runs and is none; look into ",
                                  dir_.File("full"), " or ", dir_.File("smartpipe")));
}

TEST_F(LoadRunTraceTest, AWorkersTraceIsMissing) {
  std::filesystem::remove(Trace(0));
  EXPECT_THAT(Error(), HasSubstr("lacks the trace of rank 0 of 2; copy"));
}

TEST_F(LoadRunTraceTest, ATraceOfAnotherRun) {
  const std::string good = ReadFile(Trace(1));
  WriteFile(Trace(1), absl::StrReplaceAll(good, {{"\"num_layers\":8", "\"num_layers\":9"}}));
  EXPECT_THAT(Error(), HasSubstr("trace-w1.jsonl is of another run (number of layers 9, not 8"));
  WriteFile(Trace(1), absl::StrReplaceAll(good, {{"\"num_cores\":0", "\"num_cores\":1"}}));
  EXPECT_THAT(Error(), HasSubstr("is of another run (number of cores 1, not 0"));
  WriteFile(Trace(1), absl::StrReplaceAll(good, {{"\"cuts\":[4]", "\"cuts\":[5]"}}));
  EXPECT_THAT(Error(), HasSubstr("another plan at step 0"));
  WriteFile(Trace(1), absl::StrReplaceAll(good, {{"\"t_ns\": 1", "\"t_ns\": 99"}}));
  EXPECT_THAT(Error(), HasSubstr("are of different times"));
  WriteFile(Trace(1), good);
  WriteFile(dir_.File("trace-x.jsonl"), good);
  EXPECT_THAT(Error(), HasSubstr("there is another trace of w1"));
  WriteFile(dir_.File("trace-x.jsonl"), absl::StrReplaceAll(good, {{"\"w1\"", "\"w7\""}}));
  EXPECT_THAT(Error(), HasSubstr("are both of rank 1"));
}

TEST_F(LoadRunTraceTest, StagesOfAnotherRank) {
  const std::string good = ReadFile(Trace(1));
  WriteFile(Trace(1), absl::StrReplaceAll(good, {{"\"1F2\"", "\"0F2\""}}));
  EXPECT_THAT(Error(), HasSubstr("trace-w1.jsonl:3: it holds 0F2 of step 0, but stage 0 was rank "
                                 "0's and this is the trace of rank 1"));
  WriteFile(Trace(1), absl::StrReplaceAll(good, {{"\"1F2\"", "\"2F2\""}}));
  EXPECT_THAT(Error(), HasSubstr("trace-w1.jsonl:3: it holds 2F2 of step 0, but there was no"));
}

TEST_F(LoadRunTraceTest, Garbage) {
  const std::string good = ReadFile(Trace(1));
  WriteFile(Trace(1), absl::StrCat(good, "no JSON\n"));
  EXPECT_THAT(Error(), HasSubstr("trace-w1.jsonl:6: "));
  WriteFile(Trace(1), absl::StrReplaceAll(good, {{"1F0", "1X0"}}));
  EXPECT_THAT(Error(), HasSubstr("trace-w1.jsonl:3: "));
  WriteFile(Trace(1), absl::StrReplaceAll(good, {{"1F0", "1F77"}}));
  EXPECT_THAT(Error(), HasSubstr("1F77 is outside the pipeline"));
  WriteFile(Trace(1), absl::StrReplaceAll(good, {{"\"step\": 2", "\"step\": 1"}}));
  EXPECT_THAT(Error(), HasSubstr("holds step 1 twice"));
  WriteFile(Trace(1), absl::StrReplaceAll(good, {{"\"step\": 2", "\"step\": 900000000"}}));
  EXPECT_THAT(Error(), HasSubstr("too far apart"));
  WriteFile(Trace(1), "");
  EXPECT_THAT(Error(), HasSubstr("trace-w1.jsonl is empty"));
  WriteFile(Trace(1), std::string("\0\xff\x7f"
                                  "ELF\n",
                                  7));
  EXPECT_THAT(Error(), HasSubstr("trace-w1.jsonl:1: not a line of a trace"));
  WriteFile(Trace(1), absl::StrReplaceAll(good, {{"\"t_ns\": ", "\"t_ns\": 9999999999"}}));
  EXPECT_THAT(Error(), HasSubstr("\"t_ns\" is not a whole number in"));
  WriteFile(Trace(1), absl::StrCat(good, "{\"clock\": [0, 9000000000000000000, 1]}\n"));
  EXPECT_THAT(Error(), HasSubstr("trace-w1.jsonl:6: not a line of a trace: \"clock\""));
  WriteFile(Trace(1), absl::StrCat(good, "{\"clock\": [0, 90000000000000, 1]}\n"));
  WriteFile(Trace(0), absl::StrCat(ReadFile(Trace(0)), "{\"clock\": [0, 0, 1]}\n"));
  EXPECT_THAT(Error(), HasSubstr("are of different times"));
  WriteFile(Trace(1), good);
  WriteFile(dir_.File("decisions.jsonl"), "{}\n[]\n{\"type\": 3}\n");
  EXPECT_THAT(Error(), HasSubstr("decisions.jsonl:2: not a decision"));
  WriteFile(dir_.File("decisions.jsonl"),
            "{\"type\":\"verdict\",\"step\":\"x\",\"cuts\":7}\n{\"ty");
  const absl::StatusOr<RunTrace> run = LoadRunTrace(dir_.path());
  ASSERT_TRUE(run.ok()) << run.status();
  EXPECT_THAT(run->decisions, SizeIs(1));
  EXPECT_THAT(run->notes, ElementsAre(HasSubstr("decisions.jsonl ends in mid-line")));
}

}  // namespace
}  // namespace smartpipe
