// What callers may get wrong: each mistake has its status and a sentence, and changes nothing.
#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/base/limits.h"
#include "services/rpc/status.h"
#include "tests/component/freeze_service/service_harness.h"

namespace smartpipe {
namespace {

using absl::StatusCode;
using testing::HasSubstr;
using Stub = v1::FreezeService::Stub;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();

template <typename Request>
struct Mistake {
  std::string what;
  std::function<void(Request&)> make;
  StatusCode code;
  std::string words;
};

/// The run as others see it, and everything decided so far.
std::string Snapshot(ServiceHarness& harness) {
  return harness.GetRun().SerializeAsString() + testutil::ReadFile(harness.File("decisions.jsonl"));
}

template <typename Request>
void TryAll(ServiceHarness& harness, const Request& good,
            const std::vector<Mistake<Request>>& mistakes,
            const std::function<absl::Status(const Request&)>& call) {
  const std::string before = Snapshot(harness);
  for (const Mistake<Request>& mistake : mistakes) {
    SCOPED_TRACE(mistake.what);
    Request bad = good;
    mistake.make(bad);
    const absl::Status status = call(bad);
    EXPECT_EQ(status.code(), mistake.code) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(mistake.words));
    EXPECT_EQ(Snapshot(harness), before);
  }
}

TEST(BadInput, Join) {
  ServiceHarness harness;
  FakeWorker present(harness.Channel(), "w0");
  present.Next();
  struct Case {
    std::string id;
    int64_t incarnation;
    grpc::StatusCode code;
    std::string words;
  };
  for (const Case& c :
       {Case{"", 1, grpc::StatusCode::INVALID_ARGUMENT, "worker_id \"\""},
        Case{"W 0", 1, grpc::StatusCode::INVALID_ARGUMENT, "a-z, 0-9"},
        Case{std::string(64, 'a'), 1, grpc::StatusCode::INVALID_ARGUMENT, "1 to 63"},
        Case{"w1", 0, grpc::StatusCode::INVALID_ARGUMENT, "incarnation is 0"},
        Case{"w0", 2, grpc::StatusCode::ALREADY_EXISTS, "connected already"}}) {
    FakeWorker bad(harness.Channel(), c.id, c.incarnation);
    const grpc::Status status = bad.EndOfStream();
    EXPECT_EQ(status.error_code(), c.code) << c.id;
    EXPECT_THAT(status.error_message(), HasSubstr(c.words));
  }
  EXPECT_TRUE(present.Announce().ok());
}

TEST(BadInput, JoiningARunningRun) {
  ServiceHarness harness;
  StartedRun run(harness.Channel());
  FakeWorker late(harness.Channel(), "w2");
  const grpc::Status status = late.EndOfStream();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_THAT(status.error_message(), HasSubstr("the run has its workers (w0, w1)"));
}

TEST(BadInput, AnnounceLayers) {
  ServiceHarness harness;
  FakeWorker w0(harness.Channel(), "w0"), w1(harness.Channel(), "w1");
  w0.Next(), w1.Next();
  ASSERT_TRUE(w0.Announce().ok());
  using R = v1::AnnounceLayersRequest;
  const std::vector<Mistake<R>> mistakes = {
      {"malformed id", [](R& r) { r.set_worker_id("W"); }, StatusCode::kInvalidArgument,
       "worker_id"},
      {"no stream", [](R& r) { r.set_worker_id("w5"); }, StatusCode::kNotFound, "call Join first"},
      {"old process", [](R& r) { r.set_incarnation(9); }, StatusCode::kFailedPrecondition,
       "incarnation 9"},
      {"no layers", [](R& r) { r.clear_layers(); }, StatusCode::kInvalidArgument, "0 layers"},
      {"one layer less", [](R& r) { r.mutable_layers()->RemoveLast(); },
       StatusCode::kInvalidArgument, "3"},
      {"too many layers",
       [](R& r) {
         for (int i = 0; i < limits::kLayersMax; ++i) r.add_layers()->set_name("x");
       },
       StatusCode::kResourceExhausted, "the range is 1 to 4096"},
      {"other name", [](R& r) { r.mutable_layers(1)->set_name("head"); },
       StatusCode::kInvalidArgument, "head"},
      {"no name", [](R& r) { r.mutable_layers(1)->clear_name(); }, StatusCode::kInvalidArgument,
       "layers[1].name"},
      {"NaN time", [](R& r) { r.mutable_layers(2)->mutable_cost()->set_forward_s(kNaN); },
       StatusCode::kInvalidArgument, "layers[2].cost.forward_s is nan"},
      {"negative time", [](R& r) { r.mutable_layers(2)->mutable_cost()->set_forward_s(-1); },
       StatusCode::kInvalidArgument, "forward_s"},
      {"negative bytes", [](R& r) { r.mutable_layers(2)->mutable_cost()->set_param_bytes(-1); },
       StatusCode::kInvalidArgument, "param_bytes"},
      {"endless time", [](R& r) { r.mutable_layers(2)->mutable_cost()->set_optimize_s(1e7); },
       StatusCode::kInvalidArgument, "optimize_s is 1e+07, it must be at most 1e+06 seconds"},
      {"too many bytes",
       [](R& r) {
         r.mutable_layers(2)->mutable_cost()->set_output_bytes(limits::kTensorBytesMax + 1);
       },
       StatusCode::kInvalidArgument, "output_bytes is 17592186044417, it must be at most"},
      {"no steps", [](R& r) { r.set_num_steps(0); }, StatusCode::kInvalidArgument,
       "num_steps is 0"},
      {"other length", [](R& r) { r.set_num_steps(50); }, StatusCode::kInvalidArgument,
       "num_steps"},
      {"interval", [](R& r) { r.set_interval_steps(-10); }, StatusCode::kInvalidArgument,
       "interval_steps is -10"},
  };
  TryAll<R>(harness, MakeAnnouncement("w1"), mistakes, [&](const R& r) { return w1.Announce(r); });
  EXPECT_TRUE(w1.Announce().ok());
}

TEST(BadInput, ReportInterval) {
  ServiceHarness harness;
  StartedRun run(harness.Channel());
  const v1::Verdict first = run.w0.Next().verdict();
  const v1::ReportIntervalRequest good = run.w0.MakeReport(0, 0, first);
  using R = v1::ReportIntervalRequest;
  const std::vector<Mistake<R>> mistakes = {
      {"malformed id", [](R& r) { r.set_worker_id(""); }, StatusCode::kInvalidArgument,
       "worker_id"},
      {"unknown worker", [](R& r) { r.set_worker_id("w9"); }, StatusCode::kNotFound, "w9"},
      {"stale generation", [](R& r) { r.set_generation(0); }, StatusCode::kFailedPrecondition,
       "generation 0"},
      {"future generation", [](R& r) { r.set_generation(2); }, StatusCode::kFailedPrecondition,
       "generation 2"},
      {"stale plan epoch", [](R& r) { r.set_plan_epoch(7); }, StatusCode::kFailedPrecondition,
       "plan epoch 7"},
      {"negative interval", [](R& r) { r.set_interval(-1); }, StatusCode::kInvalidArgument,
       "interval is -1"},
      {"skipped interval", [](R& r) { r.set_interval(1); }, StatusCode::kFailedPrecondition,
       "interval"},
      {"no layers", [](R& r) { r.clear_layers(); }, StatusCode::kInvalidArgument, "0 layers"},
      {"a layer missing", [](R& r) { r.mutable_layers()->RemoveLast(); },
       StatusCode::kInvalidArgument, "layer"},
      {"unknown layer", [](R& r) { r.mutable_layers(0)->set_layer(17); },
       StatusCode::kInvalidArgument, "17"},
      {"layer twice", [](R& r) { r.mutable_layers(1)->set_layer(0); }, StatusCode::kInvalidArgument,
       "layer"},
      {"layer of another stage", [](R& r) { r.add_layers()->set_layer(2); },
       StatusCode::kInvalidArgument, "layer"},
      {"frozen mark", [](R& r) { r.mutable_layers(0)->set_frozen(true); },
       StatusCode::kInvalidArgument, "frozen"},
      {"NaN step time", [](R& r) { r.set_step_s(kNaN); }, StatusCode::kInvalidArgument,
       "step_s is nan"},
      {"infinite wait", [](R& r) { r.set_verdict_wait_s(kInf); }, StatusCode::kInvalidArgument,
       "verdict_wait_s"},
      {"negative drain", [](R& r) { r.set_switch_drain_s(-1); }, StatusCode::kInvalidArgument,
       "switch_drain_s"},
      {"negative bytes", [](R& r) { r.set_switch_moved_bytes(-1); }, StatusCode::kInvalidArgument,
       "moved_bytes"},
      {"NaN cost", [](R& r) { r.mutable_layers(0)->mutable_cost()->set_weight_grad_s(kNaN); },
       StatusCode::kInvalidArgument, "weight_grad_s"},
      {"endless step", [](R& r) { r.set_step_s(1e7); }, StatusCode::kInvalidArgument,
       "step_s is 1e+07, it must be at most"},
      {"endless cost", [](R& r) { r.mutable_layers(0)->mutable_cost()->set_forward_s(1e300); },
       StatusCode::kInvalidArgument, "forward_s is 1e+300"},
      {"too many bytes",
       [](R& r) {
         r.mutable_layers(0)->mutable_cost()->set_activation_bytes(limits::kTensorBytesMax + 1);
       },
       StatusCode::kInvalidArgument, "activation_bytes is 17592186044417"},
      {"too many bytes moved", [](R& r) { r.set_switch_moved_bytes(limits::kTensorBytesMax + 1); },
       StatusCode::kInvalidArgument, "switch_moved_bytes is 17592186044417"},
      {"negative norm", [](R& r) { r.mutable_layers(0)->set_grad_norm_l2(-1); },
       StatusCode::kInvalidArgument, "grad_norm_l2"},
      {"negative count", [](R& r) { r.mutable_layers(0)->set_num_nonfinite_steps(-1); },
       StatusCode::kInvalidArgument, "negative count"},
  };
  TryAll<R>(harness, good, mistakes, [&](const R& r) { return run.w0.Report(r); });
  // A gradient that is not a number is news, not a mistake.
  v1::ReportIntervalRequest diverged = good;
  diverged.mutable_layers(0)->set_grad_norm_l2(kNaN);
  diverged.mutable_layers(0)->mutable_cost()->set_output_bytes(-1);  // not measured
  EXPECT_TRUE(run.w0.Report(diverged).ok());
}

TEST(BadInput, ReportProgress) {
  ServiceHarness harness;
  StartedRun run(harness.Channel());
  using R = v1::ReportProgressRequest;
  R good;
  good.set_worker_id("w1");
  good.set_generation(1);
  for (int step : {0, 1}) {
    good.add_steps()->set_step(step);
    good.mutable_steps(step)->set_step_s(0.1);
  }
  good.add_evaluations()->set_step(2);
  const std::vector<Mistake<R>> mistakes = {
      {"malformed id", [](R& r) { r.set_worker_id("?"); }, StatusCode::kInvalidArgument,
       "worker_id"},
      {"unknown worker", [](R& r) { r.set_worker_id("w9"); }, StatusCode::kNotFound, "\"w9\""},
      {"stale generation", [](R& r) { r.set_generation(3); }, StatusCode::kFailedPrecondition,
       "generation 3"},
      {"order", [](R& r) { r.mutable_steps(1)->set_step(0); }, StatusCode::kInvalidArgument,
       "ascend"},
      {"beyond the end", [](R& r) { r.mutable_steps(1)->set_step(40); },
       StatusCode::kInvalidArgument, "[0, 40)"},
      {"negative time", [](R& r) { r.mutable_steps(1)->set_step_s(-1); },
       StatusCode::kInvalidArgument, "step 1"},
      {"accuracy", [](R& r) { r.mutable_evaluations(0)->set_accuracy(1.5); },
       StatusCode::kInvalidArgument, "0 to 1"},
      {"NaN accuracy", [](R& r) { r.mutable_evaluations(0)->set_accuracy(kNaN); },
       StatusCode::kInvalidArgument, "0 to 1"},
      {"evaluation step", [](R& r) { r.mutable_evaluations(0)->set_step(-4); },
       StatusCode::kInvalidArgument, "-4"},
      {"NaN seconds", [](R& r) { r.mutable_evaluations(0)->set_seconds(kNaN); },
       StatusCode::kInvalidArgument, "seconds"},
  };
  TryAll<R>(harness, good, mistakes, [&](const R& r) { return run.w1.Progress(r); });
  EXPECT_TRUE(run.w1.Progress(good).ok());
}

TEST(BadInput, EndWorker) {
  ServiceHarness harness;
  StartedRun run(harness.Channel());
  using R = v1::EndWorkerRequest;
  R good;
  good.set_worker_id("w0");
  good.set_generation(1);
  const std::vector<Mistake<R>> mistakes = {
      {"malformed id", [](R& r) { r.set_worker_id("?"); }, StatusCode::kInvalidArgument,
       "worker_id"},
      {"unknown worker", [](R& r) { r.set_worker_id("w9"); }, StatusCode::kNotFound, "w9"},
      {"stale generation", [](R& r) { r.set_generation(0); }, StatusCode::kFailedPrecondition,
       "generation 0"},
      {"NaN time", [](R& r) { r.set_train_s(kNaN); }, StatusCode::kInvalidArgument,
       "train_s is nan"},
      {"negative time", [](R& r) { r.set_report_s(-1); }, StatusCode::kInvalidArgument,
       "report_s is -1"},
      {"negative pause", [](R& r) { r.set_checkpoint_s(-1); }, StatusCode::kInvalidArgument,
       "checkpoint_s is -1"},
      {"negative bytes", [](R& r) { r.set_checkpoint_bytes_shared(-1); },
       StatusCode::kInvalidArgument, "bytes of checkpoints"},
      {"digest", [](R& r) { r.set_weights_sha256("abc"); }, StatusCode::kInvalidArgument,
       "64 lowercase hex"},
      {"digest case", [](R& r) { r.set_weights_sha256(std::string(64, 'A')); },
       StatusCode::kInvalidArgument, "hex"},
      {"long error", [](R& r) { r.set_error(std::string(3000, 'x')); },
       StatusCode::kResourceExhausted, "3000 bytes"},
  };
  TryAll<R>(harness, good, mistakes, [&](const R& r) { return run.w0.EndWorker(r); });
  EXPECT_EQ(run.w0.EndWorker(good).code(), StatusCode::kFailedPrecondition);  // too early
  run.ReportAll();
  EXPECT_TRUE(run.w0.EndWorker(good).ok());
  EXPECT_TRUE(run.w0.EndWorker(good).ok());  // repeated
  EXPECT_EQ(run.w0.EndWorker("changed its mind").code(), StatusCode::kFailedPrecondition);
}

TEST(BadInput, OperatorCalls) {
  ServiceHarness harness;
  StartedRun run(harness.Channel());
  const std::string before = Snapshot(harness);
  v1::ListVerdictsResponse decisions;
  for (const char* token : {"x", "-1", " 1", "1e3", "99", "99999999999999999999999"}) {
    v1::ListVerdictsRequest request;
    request.set_page_token(token);
    const grpc::Status status = CallStub(run.w0.stub(), &Stub::ListVerdicts, request, &decisions);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT) << token;
    EXPECT_THAT(status.error_message(), HasSubstr("page_token"));
  }
  for (int size : {-1, 1001}) {
    v1::ListVerdictsRequest request;
    request.set_page_size(size);
    const grpc::Status status = CallStub(run.w0.stub(), &Stub::ListVerdicts, request, &decisions);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
    EXPECT_THAT(status.error_message(), HasSubstr("1 to 1000"));
  }
  v1::StopRequest stop;
  stop.set_reason(std::string(5000, 'x'));
  v1::StopResponse stopped;
  EXPECT_EQ(CallStub(run.w0.stub(), &Stub::Stop, stop, &stopped).error_code(),
            grpc::StatusCode::RESOURCE_EXHAUSTED);
  for (const char* reason : {"two\nlines", "tab\t", "\x1b[31mred", "\x7f"}) {
    stop.set_reason(reason);
    EXPECT_EQ(CallStub(run.w0.stub(), &Stub::Stop, stop, &stopped).error_code(),
              grpc::StatusCode::INVALID_ARGUMENT)
        << reason;
  }
  EXPECT_EQ(Snapshot(harness), before);
}

}  // namespace
}  // namespace smartpipe
