#include "worker/comm/c10d_store.h"

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "c10/util/Exception.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/base/memory_key_value_store.h"

namespace smartpipe {
namespace {

using std::chrono::milliseconds;
using testing::HasSubstr;

// Every call fails as when the service is gone.
class DeadStore final : public KeyValueStore {
 public:
  absl::Status Set(const std::string&, const std::string&) override { return kGone; }
  absl::StatusOr<std::string> Get(const std::string&, absl::Duration) override { return kGone; }
  absl::StatusOr<int64_t> Add(const std::string&, int64_t) override { return kGone; }
  absl::StatusOr<std::string> CompareAndSet(const std::string&, const std::string&,
                                            const std::string&) override {
    return kGone;
  }
  absl::StatusOr<bool> Check(const std::vector<std::string>&) override { return kGone; }
  absl::Status Wait(const std::vector<std::string>&, absl::Duration) override { return kGone; }
  absl::StatusOr<bool> Delete(const std::string&) override { return kGone; }
  absl::StatusOr<int64_t> NumKeys() override { return kGone; }
  void Cancel() override {}

 private:
  const absl::Status kGone = absl::UnavailableError("the service is gone");
};

TEST(C10dStore, PassesEveryCallOn) {
  auto memory = std::make_shared<MemoryKeyValueStore>();
  C10dStore store(memory, milliseconds(1000));
  const std::vector<uint8_t> bytes = {0, 255, 10};
  store.set("a", bytes);
  EXPECT_EQ(store.get("a"), bytes);
  store.set("text", std::string("abc"));
  EXPECT_EQ(store.get_to_str("text"), "abc");
  EXPECT_EQ(*memory->Get("text", absl::ZeroDuration()), "abc");
  EXPECT_EQ(store.add("n", 3), 3);
  EXPECT_EQ(store.add("n", 4), 7);
  EXPECT_EQ(store.compareSet("c", std::string(""), std::string("new")), "new");
  EXPECT_EQ(store.compareSet("c", std::string("other"), std::string("newer")), "new");
  EXPECT_TRUE(store.check({"a", "c"}));
  EXPECT_FALSE(store.check({"a", "z"}));
  EXPECT_EQ(store.getNumKeys(), 4);
  EXPECT_TRUE(store.deleteKey("a"));
  EXPECT_FALSE(store.deleteKey("a"));
  store.wait({"text", "n"});
  EXPECT_EQ(store.status(), absl::OkStatus());
}

TEST(C10dStore, CloneSharesTheContents) {
  C10dStore store(std::make_shared<MemoryKeyValueStore>(), milliseconds(1000));
  auto other = store.clone();
  other->set("a", std::string("1"));
  EXPECT_EQ(store.get_to_str("a"), "1");
  EXPECT_EQ(other->getTimeout(), milliseconds(1000));
}

TEST(C10dStore, TimeoutIsAStoreError) {
  C10dStore store(std::make_shared<MemoryKeyValueStore>(), milliseconds(1));
  EXPECT_THROW(store.get("missing"), c10::DistStoreError);
  EXPECT_THROW(store.wait({"missing"}), c10::DistStoreError);
  store.setTimeout(milliseconds(2));
  try {
    store.wait({"other"}, milliseconds(3));
    FAIL();
  } catch (const c10::DistStoreError& error) {
    EXPECT_THAT(error.what(), HasSubstr("waited 3ms for key other"));
  }
  EXPECT_EQ(store.status(), absl::DeadlineExceededError("waited 1ms for key missing"))
      << "the first one stays";
}

TEST(C10dStore, CancelIsAStoreError) {
  auto memory = std::make_shared<MemoryKeyValueStore>();
  C10dStore store(memory, milliseconds(1000));
  memory->Cancel();
  EXPECT_THROW(store.wait({"a"}), c10::DistStoreError);
  EXPECT_EQ(store.status().code(), absl::StatusCode::kCancelled);
}

TEST(C10dStore, LostServiceIsANetworkError) {
  C10dStore store(std::make_shared<DeadStore>(), milliseconds(1000));
  EXPECT_THROW(store.set("a", std::string("1")), c10::DistNetworkError);
  EXPECT_THROW(store.get("a"), c10::DistNetworkError);
  EXPECT_THROW(store.add("a", 1), c10::DistNetworkError);
  EXPECT_THROW(store.compareSet("a", std::string("1"), std::string("2")), c10::DistNetworkError);
  EXPECT_THROW(store.check({"a"}), c10::DistNetworkError);
  EXPECT_THROW(store.wait({"a"}), c10::DistNetworkError);
  EXPECT_THROW(store.deleteKey("a"), c10::DistNetworkError);
  EXPECT_THROW(store.getNumKeys(), c10::DistNetworkError);
  EXPECT_EQ(store.status(), absl::UnavailableError("the service is gone"));
}

}  // namespace
}  // namespace smartpipe
