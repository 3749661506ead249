// The rendezvous store, from outside.
#include <string>
#include <thread>

#include "absl/strings/str_cat.h"
#include "freeze_service/rpc/key_value_space.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/base/limits.h"
#include "services/rpc/status.h"
#include "tests/component/freeze_service/service_harness.h"

namespace smartpipe {
namespace {

using absl::StatusCode;
using testing::ElementsAre;
using testing::HasSubstr;
using Stub = v1::FreezeService::Stub;

const Generation kGen(1);
const auto kNever = [] { return false; };

TEST(KeyValueSpace, HoldsOneGenerationAtATime) {
  KeyValueSpace space;
  EXPECT_THAT(space.Set(kGen, "a", "1").ToString(), HasSubstr("the run has not started"));
  space.Open(kGen);
  ASSERT_TRUE(space.Set(kGen, "a", "1").ok());
  const absl::Status stale = space.Set(Generation(0), "a", "2");
  EXPECT_EQ(stale.code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(stale.message(), "generation 0 is stale: the run is at generation 1");
  space.Open(Generation(2));
  EXPECT_EQ(space.Count(Generation(2)).value(), 0);
  EXPECT_EQ(space.Count(kGen).status().code(), StatusCode::kFailedPrecondition);
}

TEST(KeyValueSpace, AddsComparesDeletesAndCounts) {
  KeyValueSpace space;
  space.Open(kGen);
  EXPECT_EQ(space.Add(kGen, "n", 5).value(), 5);
  EXPECT_EQ(space.Add(kGen, "n", -7).value(), -2);
  EXPECT_EQ(space.Add(kGen, "n", INT64_MIN).status().code(), StatusCode::kInvalidArgument);
  ASSERT_TRUE(space.Set(kGen, "text", "x").ok());
  EXPECT_EQ(space.Add(kGen, "text", 1).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(space.CompareAndSet(kGen, "c", "", "first").value(), "first");
  EXPECT_EQ(space.CompareAndSet(kGen, "c", "", "second").value(), "first");
  EXPECT_EQ(space.CompareAndSet(kGen, "c", "first", "second").value(), "second");
  EXPECT_EQ(space.CompareAndSet(kGen, "absent", "something", "x").value(), "");
  EXPECT_EQ(space.Count(kGen).value(), 3);
  EXPECT_TRUE(space.Check(kGen, {"n", "c"}).value());
  EXPECT_FALSE(space.Check(kGen, {"n", "absent"}).value());
  EXPECT_TRUE(space.Delete(kGen, "n").value());
  EXPECT_FALSE(space.Delete(kGen, "n").value());
}

TEST(KeyValueSpace, EnforcesItsLimits) {
  KeyValueSpace space;
  space.Open(kGen);
  EXPECT_EQ(space.Set(kGen, "", "x").code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(space.Set(kGen, std::string(limits::kKeyValueKeyBytesMax + 1, 'k'), "x").code(),
            StatusCode::kResourceExhausted);
  EXPECT_EQ(space.Set(kGen, "k", std::string(limits::kKeyValueValueBytesMax + 1, 'v')).code(),
            StatusCode::kResourceExhausted);
  EXPECT_EQ(space.Get(kGen, {}, absl::InfiniteFuture(), kNever).status().code(),
            StatusCode::kInvalidArgument);
  for (int64_t i = 0; i < limits::kKeyValueEntriesMax; ++i)
    ASSERT_TRUE(space.Set(kGen, absl::StrCat(i), "").ok());
  EXPECT_EQ(space.Set(kGen, "one more", "").code(), StatusCode::kResourceExhausted);
  EXPECT_TRUE(space.Set(kGen, "7", "replaced").ok());
  // Values that fit one by one may not fit one answer.
  for (int i = 0; i < 3; ++i)
    ASSERT_TRUE(space.Set(kGen, absl::StrCat(i), std::string(1 << 20, 'v')).ok());
  EXPECT_EQ(space.Get(kGen, {"0", "1", "2"}, absl::InfiniteFuture(), kNever).status().code(),
            StatusCode::kResourceExhausted);
}

TEST(KeyValueSpace, WaitsForAllKeys) {
  KeyValueSpace space;
  space.Open(kGen);
  ASSERT_TRUE(space.Set(kGen, "a", "1").ok());
  std::thread setter([&] { ASSERT_TRUE(space.Set(kGen, "b", "2").ok()); });
  EXPECT_THAT(space.Get(kGen, {"b", "a"}, absl::InfiniteFuture(), kNever).value(),
              ElementsAre("2", "1"));
  setter.join();
}

TEST(KeyValueSpace, AWaitEndsByDeadlineCancelOrTheEndOfTheRun) {
  KeyValueSpace space;
  space.Open(kGen);
  ASSERT_TRUE(space.Set(kGen, "a", "1").ok());
  const absl::Status late =
      space.Get(kGen, {"a", "b", std::string("\x01", 1)}, absl::Now(), kNever).status();
  EXPECT_EQ(late.code(), StatusCode::kDeadlineExceeded);
  EXPECT_EQ(late.message(), "these keys were not set in time: b, \\x01");
  EXPECT_EQ(space.Get(kGen, {"b"}, absl::InfiniteFuture(), [] { return true; }).status().code(),
            StatusCode::kCancelled);
  std::thread closer([&] { space.Close("the run is over: w1 is lost"); });
  EXPECT_EQ(space.Get(kGen, {"b"}, absl::InfiniteFuture(), kNever).status(),
            absl::FailedPreconditionError("the run is over: w1 is lost"));
  closer.join();
}

TEST(KeyValueCalls, ServeTheCurrentGeneration) {
  ServiceHarness harness;
  StartedRun run(harness.Channel());
  v1::SetKeyRequest set;
  set.set_generation(1);
  set.set_key(std::string("rank\0zero", 9));
  set.set_value(std::string("\xff\x00", 2));
  v1::SetKeyResponse set_response;
  ASSERT_TRUE(CallStub(run.w0.stub(), &Stub::SetKey, set, &set_response).ok());
  v1::GetKeysRequest get;
  get.set_generation(1);
  get.add_keys(set.key());
  v1::GetKeysResponse values;
  ASSERT_TRUE(CallStub(run.w1.stub(), &Stub::GetKeys, get, &values).ok());
  EXPECT_THAT(values.values(), ElementsAre(set.value()));

  v1::CheckKeysRequest check;
  check.set_generation(1);
  check.add_keys("nothing");
  v1::CheckKeysResponse present;
  ASSERT_TRUE(CallStub(run.w0.stub(), &Stub::CheckKeys, check, &present).ok());
  EXPECT_FALSE(present.present());
  v1::CountKeysRequest count;
  count.set_generation(9);
  v1::CountKeysResponse counted;
  EXPECT_EQ(CallStub(run.w0.stub(), &Stub::CountKeys, count, &counted).error_code(),
            grpc::StatusCode::FAILED_PRECONDITION);
  v1::DeleteKeyRequest remove;
  remove.set_generation(1);
  remove.set_key(set.key());
  v1::DeleteKeyResponse removed;
  ASSERT_TRUE(CallStub(run.w0.stub(), &Stub::DeleteKey, remove, &removed).ok());
  EXPECT_TRUE(removed.deleted());
}

TEST(KeyValueCalls, AWaitThatTimesOutNamesWhatIsMissing) {
  ServiceHarness harness;
  StartedRun run(harness.Channel());
  v1::GetKeysRequest request;
  request.set_generation(1);
  request.add_keys("nccl_id");
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(500));
  v1::GetKeysResponse response;
  const grpc::Status status = run.w0.stub().GetKeys(&context, request, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_THAT(status.error_message(), HasSubstr("nccl_id"));
}

}  // namespace
}  // namespace smartpipe
