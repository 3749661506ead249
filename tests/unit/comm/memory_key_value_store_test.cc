#include "services/base/memory_key_value_store.h"

#include <cstdint>
#include <limits>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace smartpipe {
namespace {

using testing::HasSubstr;

constexpr absl::Duration kLong = absl::Seconds(60);

TEST(MemoryKeyValueStore, HoldsBytes) {
  MemoryKeyValueStore store;
  const std::string bytes("\0\xff\n", 3);
  EXPECT_EQ(store.Set("a", bytes), absl::OkStatus());
  EXPECT_EQ(*store.Get("a", absl::ZeroDuration()), bytes);
  EXPECT_EQ(store.Set("a", ""), absl::OkStatus());
  EXPECT_EQ(*store.Get("a", absl::ZeroDuration()), "");
  EXPECT_EQ(*store.NumKeys(), 1);
  EXPECT_TRUE(*store.Check({"a"}));
  EXPECT_FALSE(*store.Check({"a", "b"}));
  EXPECT_TRUE(*store.Delete("a"));
  EXPECT_FALSE(*store.Delete("a"));
}

TEST(MemoryKeyValueStore, CountsAndCompares) {
  MemoryKeyValueStore store;
  EXPECT_EQ(*store.Add("n", 5), 5);
  EXPECT_EQ(*store.Add("n", -7), -2);
  EXPECT_EQ(*store.Get("n", absl::ZeroDuration()), "-2");
  EXPECT_EQ(store.Set("text", "x"), absl::OkStatus());
  EXPECT_EQ(store.Add("text", 1).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(*store.Add("n", std::numeric_limits<int64_t>::min() + 2),
            std::numeric_limits<int64_t>::min());
  EXPECT_EQ(store.Add("n", -1).status().code(), absl::StatusCode::kOutOfRange);

  EXPECT_EQ(*store.CompareAndSet("c", "other", "new"), "") << "absent is empty";
  EXPECT_FALSE(*store.Check({"c"}));
  EXPECT_EQ(*store.CompareAndSet("c", "", "first"), "first");
  EXPECT_EQ(*store.CompareAndSet("c", "", "second"), "first");
  EXPECT_EQ(*store.CompareAndSet("c", "first", "second"), "second");
}

TEST(MemoryKeyValueStore, WaitsForOthers) {
  MemoryKeyValueStore store;
  std::thread setter([&store] {
    EXPECT_EQ(store.Set("a", "1"), absl::OkStatus());
    EXPECT_EQ(store.Set("b", "2"), absl::OkStatus());
  });
  EXPECT_EQ(*store.Get("b", kLong), "2");
  EXPECT_EQ(store.Wait({"a", "b"}, kLong), absl::OkStatus());
  setter.join();
}

TEST(MemoryKeyValueStore, DeadlineNamesTheMissingKeys) {
  MemoryKeyValueStore store;
  EXPECT_EQ(store.Set("a", "1"), absl::OkStatus());
  const absl::Status status = store.Wait({"a", "b", "c"}, absl::Milliseconds(5));
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(status.message(), "waited 5ms for key b, c");
  EXPECT_EQ(store.Get("b", -absl::Seconds(1)).status().code(), absl::StatusCode::kDeadlineExceeded);
}

TEST(MemoryKeyValueStore, CancelEndsEverything) {
  MemoryKeyValueStore store;
  std::thread waiter(
      [&store] { EXPECT_EQ(store.Get("a", kLong).status().code(), absl::StatusCode::kCancelled); });
  store.Cancel();
  waiter.join();
  EXPECT_EQ(store.Set("a", "1").code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(store.Add("a", 1).status().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(store.CompareAndSet("a", "", "1").status().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(store.Check({"a"}).status().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(store.Wait({"a"}, kLong).code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(store.Delete("a").status().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(store.NumKeys().status().code(), absl::StatusCode::kCancelled);
}

TEST(MemoryKeyValueStore, LimitsAreNamedAndChangeNothing) {
  MemoryKeyValueStore store;
  const std::string long_key(limits::kKeyValueKeyBytesMax + 1, 'k');
  EXPECT_EQ(store.Set(long_key, "").code(), absl::StatusCode::kResourceExhausted);
  const std::string long_value(limits::kKeyValueValueBytesMax + 1, 'v');
  const absl::Status status = store.Set("a", long_value);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("at most 1048576"));
  for (int64_t i = 0; i < limits::kKeyValueEntriesMax; ++i) {
    ASSERT_EQ(store.Set(absl::StrCat(i), ""), absl::OkStatus());
  }
  EXPECT_EQ(store.Set("one more", "").code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(store.Set("7", "may still change"), absl::OkStatus());
  EXPECT_EQ(*store.NumKeys(), limits::kKeyValueEntriesMax);
}

TEST(MemoryKeyValueStore, DropsAPrefix) {
  MemoryKeyValueStore store;
  for (const char* key : {"g1/a", "g1/b", "g10/a", "g2/a"})
    EXPECT_EQ(store.Set(key, ""), absl::OkStatus());
  EXPECT_EQ(store.DeletePrefix("g1/"), 2);
  EXPECT_EQ(store.DeletePrefix("g1/"), 0);
  EXPECT_TRUE(*store.Check({"g10/a", "g2/a"}));
}

TEST(MemoryKeyValueStore, CountersAreAtomic) {
  MemoryKeyValueStore store;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&store] {
      for (int i = 0; i < 500; ++i) EXPECT_TRUE(store.Add("n", 1).ok());
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(*store.Add("n", 0), 2000);
}

}  // namespace
}  // namespace smartpipe
