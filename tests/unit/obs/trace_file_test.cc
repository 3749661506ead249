#include "services/obs/trace_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "absl/strings/str_cat.h"
#include "tests/testutil/process.h"

namespace smartpipe {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testutil::TempDir;

constexpr char kHeader[] =
    R"({"trace": 1, "worker": "w0", "rank": 0, "num_ranks": 2, "generation": 1, "num_layers": 7, )"
    R"("num_microbatches": 8, "interval_steps": 50, "batch_size": 64, "run_ahead": true, "num_cores": 2})"
    "\n";

TraceHeader Header() {
  return {.worker = "w1",
          .rank = 1,
          .num_ranks = 2,
          .generation = 3,
          .num_layers = 7,
          .num_microbatches = 8,
          .interval_steps = 50,
          .batch_size = 64,
          .run_ahead = false,
          .num_cores = 1};
}

TraceStep Step(int64_t step, int num_events = 2) {
  TraceStep out{.step = step};
  for (int i = 0; i < num_events; ++i) {
    const int64_t start_ns = 1'000'000 * step + 2000 * i;
    out.events.push_back({absl::StrCat("0F", i), start_ns, start_ns + 1000});
  }
  return out;
}

absl::StatusOr<Trace> ReadText(const TempDir& dir, const std::string& text) {
  testutil::WriteFile(dir.File("trace-w0.jsonl"), text);
  return ReadTrace(dir.File("trace-w0.jsonl"));
}

std::string ReadError(const std::string& text) {
  const TempDir dir;
  const absl::StatusOr<Trace> trace = ReadText(dir, text);
  EXPECT_EQ(trace.status().code(), absl::StatusCode::kInvalidArgument) << text;
  return std::string(trace.status().message());
}

TEST(TraceFile, RoundTrip) {
  const TempDir dir;
  const std::string path = dir.File("trace-w1.jsonl");
  absl::StatusOr<std::unique_ptr<TraceWriter>> writer = TraceWriter::Create(path, Header());
  ASSERT_TRUE(writer.ok()) << writer.status();
  (*writer)->Add(TracePlan{.step = 50,
                           .plan_epoch = 2,
                           .frontier = 3,
                           .cuts = {4},
                           .stage_to_rank = {0, 1},
                           .credits = {8},
                           .schedule = "1f1b"});
  (*writer)->Add(
      ClockReading{.local_ns = -5, .offset_ns = 1'700'000'000'000'000'000, .error_ns = 7});
  // Rounded to microseconds after the first start.
  (*writer)->Add(TraceStep{.step = 50,
                           .events = {{"1RF0", 9'123'456'789, 9'123'457'288},
                                      {"1F0", 9'123'457'289, 9'123'468'289},
                                      {"1 \"odd\"", 9'123'456'789, 9'123'456'789}}});
  (*writer)->Add(TraceSpan{.name = "verdict_wait", .step = 51, .start_ns = 1, .end_ns = 2});
  (*writer)->Add(TraceStep{.step = 51});
  (*writer)->Close();
  (*writer)->Close();
  (*writer)->Add(TraceSpan{.name = "late"});

  const absl::StatusOr<Trace> trace = ReadTrace(path);
  ASSERT_TRUE(trace.ok()) << trace.status();
  EXPECT_EQ(trace->header.worker, "w1");
  EXPECT_EQ(trace->header.rank, 1);
  EXPECT_EQ(trace->header.num_ranks, 2);
  EXPECT_EQ(trace->header.generation, 3);
  EXPECT_EQ(trace->header.num_layers, 7);
  EXPECT_EQ(trace->header.num_microbatches, 8);
  EXPECT_EQ(trace->header.interval_steps, 50);
  EXPECT_EQ(trace->header.batch_size, 64);
  EXPECT_FALSE(trace->header.run_ahead);
  EXPECT_EQ(trace->header.num_cores, 1);
  ASSERT_EQ(trace->plans.size(), 1u);
  EXPECT_EQ(trace->plans[0].step, 50);
  EXPECT_EQ(trace->plans[0].plan_epoch, 2);
  EXPECT_EQ(trace->plans[0].frontier, 3);
  EXPECT_THAT(trace->plans[0].cuts, ElementsAre(4));
  EXPECT_THAT(trace->plans[0].stage_to_rank, ElementsAre(0, 1));
  EXPECT_THAT(trace->plans[0].credits, ElementsAre(8));
  EXPECT_EQ(trace->plans[0].schedule, "1f1b");
  ASSERT_EQ(trace->clock.size(), 1u);
  EXPECT_EQ(trace->clock[0].local_ns, -5);
  EXPECT_EQ(trace->clock[0].offset_ns, 1'700'000'000'000'000'000);
  EXPECT_EQ(trace->clock[0].error_ns, 7);
  ASSERT_EQ(trace->steps.size(), 2u);
  ASSERT_EQ(trace->steps[0].events.size(), 3u);
  EXPECT_EQ(trace->steps[0].events[0].start_ns, 9'123'456'789);
  EXPECT_EQ(trace->steps[0].events[0].end_ns, 9'123'456'789);
  EXPECT_EQ(trace->steps[0].events[1].name, "1F0");
  EXPECT_EQ(trace->steps[0].events[1].start_ns, 9'123'457'789);
  EXPECT_EQ(trace->steps[0].events[1].end_ns, 9'123'468'789);
  EXPECT_EQ(trace->steps[0].events[2].name, "1 \"odd\"");
  EXPECT_THAT(trace->steps[1].events, IsEmpty());
  ASSERT_EQ(trace->spans.size(), 1u);
  EXPECT_EQ(trace->spans[0].name, "verdict_wait");
  EXPECT_EQ(trace->spans[0].step, 51);
  EXPECT_EQ(trace->spans[0].end_ns, 2);
  EXPECT_EQ(trace->num_dropped, 0);
}

TEST(TraceFile, WhatIsWrittenIsReadableWithoutClose) {
  const TempDir dir;
  const std::string path = dir.File("trace-w1.jsonl");
  const absl::StatusOr<std::unique_ptr<TraceWriter>> writer = TraceWriter::Create(path, Header());
  ASSERT_TRUE(writer.ok()) << writer.status();
  (*writer)->Add(Step(0));
  EXPECT_TRUE(testutil::Eventually(
      [&] {
        const absl::StatusOr<Trace> trace = ReadTrace(path);
        return trace.ok() && trace->steps.size() == 1;
      },
      absl::Seconds(10)));
}

TEST(TraceFile, ATruncatedLastLineIsLeftOut) {
  const std::string step = R"({"step": 1, "t_ns": 5, "events": ["0F0",0,3,"0B0",3,9]})";
  const TempDir dir;
  for (size_t length = 1; length < step.size(); ++length) {
    const absl::StatusOr<Trace> trace =
        ReadText(dir, absl::StrCat(kHeader, step, "\n", step.substr(0, length)));
    ASSERT_TRUE(trace.ok()) << trace.status();
    EXPECT_EQ(trace->steps.size(), 1u);
  }
  const absl::StatusOr<Trace> trace = ReadText(dir, absl::StrCat(kHeader, step));
  ASSERT_TRUE(trace.ok()) << trace.status();
  EXPECT_EQ(trace->steps.size(), 1u) << "whole but for its newline";
}

TEST(TraceFile, NothingButPartOfAHeader) {
  EXPECT_THAT(ReadError(""), HasSubstr("is empty"));
  EXPECT_THAT(ReadError(R"({"trace": 1, "wor)"), HasSubstr("is empty"));
  EXPECT_EQ(ReadTrace("/nonexistent/trace-w0.jsonl").status().code(), absl::StatusCode::kNotFound);
}

TEST(TraceFile, GarbageIsRefusedWithItsLine) {
  EXPECT_THAT(ReadError("hello"), HasSubstr(":1: not a line of a trace: it is not a JSON object"));
  EXPECT_THAT(ReadError("[1]\n"), HasSubstr(":1: "));
  EXPECT_THAT(ReadError("{\"step\": 3}\n"),
              HasSubstr(":1: not a line of a trace: \"trace\" is mis"));
  EXPECT_THAT(ReadError(std::string("\0\0\0\n", 4)), HasSubstr(":1: "));
  EXPECT_THAT(ReadError(R"({"trace": 2, "worker": "w0"})"
                        "\n"),
              HasSubstr("newer SmartPipe"));
  const std::vector<std::pair<std::string, std::string>> bad_lines = {
      {"{half", "JSON object"},
      {"{}", "neither plan"},
      {R"({"events": []})", "\"step\" is missing"},
      {R"({"step": -1, "t_ns": 0, "events": []})", "\"step\" is not a whole number in 0.."},
      {R"({"step": 1, "t_ns": 0.5, "events": []})", "\"t_ns\" is not"},
      {R"({"step": 1, "t_ns": 18446744073709551615, "events": []})", "\"t_ns\" is not"},
      {R"({"step": 1, "t_ns": 0, "events": 3})", "\"events\" is not a list"},
      {R"({"step": 1, "t_ns": 0, "events": ["0F0", 1]})", "\"events\" is not a list"},
      {R"({"step": 1, "t_ns": 0, "events": [7, 1, 2]})", "events[0] is not a name"},
      {R"({"step": 1, "t_ns": 0, "events": ["0F0", 2, 1]})", "\"end\" is not"},
      {R"({"span": "drain", "step": 1, "ns": [1]})", "\"ns\" is not a list of 2 numbers"},
      {R"({"span": "drain", "step": 1, "ns": [2, 1]})", "ends before"},
      {R"({"clock": [1, 2, -1]})", "negative"},
      {R"({"clock": {"local": 1}})", "\"clock\" is not a list of 3"},
      {R"({"plan": 7})", "is missing"},
      {R"({"plan": {"step": 0, "plan_epoch": 0, "frontier": 7}})", "\"frontier\" is not"},
      {R"({"plan": {"step": 0, "plan_epoch": 0, "frontier": 0, "cuts": [4, 4],)"
       R"( "stage_to_rank": [0, 1, 0], "credits": [1, 1], "schedule": "1f1b"}})",
       "do not ascend"},
      {R"({"plan": {"step": 0, "plan_epoch": 0, "frontier": 0, "cuts": [4],)"
       R"( "stage_to_rank": [0, 2], "credits": [1], "schedule": "1f1b"}})",
       "\"stage_to_rank\" is not a whole number in 0..1"},
      {R"({"dropped": "many"})", "\"dropped\" is not"},
  };
  for (const auto& [line, what] : bad_lines) {
    const std::string error = ReadError(absl::StrCat(kHeader, line, "\n"));
    EXPECT_THAT(error, HasSubstr("trace-w0.jsonl:2: ")) << line;
    EXPECT_THAT(error, HasSubstr(what)) << line;
  }
}

TEST(TraceFile, ConcurrentAddsArriveOrAreCounted) {
  const TempDir dir;
  const std::string path = dir.File("trace-w1.jsonl");
  constexpr int kThreads = 4, kSteps = 2000;
  {
    const absl::StatusOr<std::unique_ptr<TraceWriter>> writer = TraceWriter::Create(path, Header());
    ASSERT_TRUE(writer.ok()) << writer.status();
    std::vector<std::thread> threads;
    for (int t = 0; t < kThreads; ++t) {
      threads.emplace_back([&writer, t] {
        for (int i = 0; i < kSteps; ++i) (*writer)->Add(Step(t * kSteps + i, 20));
      });
    }
    for (std::thread& thread : threads) thread.join();
    std::thread closer([&writer] { (*writer)->Close(); });
    (*writer)->Close();
    closer.join();
  }
  const absl::StatusOr<Trace> trace = ReadTrace(path);
  ASSERT_TRUE(trace.ok()) << trace.status();
  EXPECT_EQ(static_cast<int64_t>(trace->steps.size()) + trace->num_dropped, kThreads * kSteps);
  EXPECT_GE(trace->steps.size(), static_cast<size_t>(TraceWriter::kQueuedMax));
  std::vector<int64_t> last(kThreads, -1);  // each thread's steps keep their order
  for (const TraceStep& step : trace->steps) {
    ASSERT_EQ(step.events.size(), 20u);
    EXPECT_GT(step.step, last[step.step / kSteps]);
    last[step.step / kSteps] = step.step;
  }
}

TEST(TraceFile, AnUnwritablePathIsAnError) {
  const TempDir dir;
  const absl::Status status = TraceWriter::Create(dir.File("no/trace.jsonl"), Header()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("no/trace.jsonl"));
}

TEST(TraceFile, AFullDiskStopsTheTraceOnly) {
  testing::internal::CaptureStderr();
  const absl::StatusOr<std::unique_ptr<TraceWriter>> writer =
      TraceWriter::Create("/dev/full", Header());
  ASSERT_TRUE(writer.ok()) << writer.status();
  for (int i = 0; i < 3000; ++i) (*writer)->Add(Step(i));
  (*writer)->Close();
  const std::string log = testing::internal::GetCapturedStderr();
  const size_t said = log.find("cannot write /dev/full: No space left on device");
  EXPECT_NE(said, std::string::npos) << log;
  EXPECT_EQ(log.rfind("cannot write"), said) << "said more than once: " << log;
}

}  // namespace
}  // namespace smartpipe
