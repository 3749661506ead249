// Ranks as processes, killed or stopped: the others must learn it at once and by name.
//
// The test program starts itself: with SMARTPIPE_TEST_ROLE set it is a rank and never reaches
// main(). Test and ranks talk through the rendezvous store only, so nothing here sleeps.
#include <signal.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/base/memory_key_value_store.h"
#include "tests/component/transport/process_store.h"
#include "tests/component/transport/rank_group.h"
#include "tests/testutil/seed.h"
#include "worker/comm/transport.h"

namespace smartpipe {
namespace {

using testing::HasSubstr;
using testutil::EmptyLike;
using testutil::PatternTensor;

constexpr absl::Duration kLong = absl::Seconds(60);
constexpr int kStoreFd = 3;  // in a rank
const Rank kVictim(1);

// ---- In the ranks ----

// Waits for a message of the victim, says how that ended, and then whether the survivors can still
// talk.
void PlayWaiting(Transport& transport, KeyValueStore& store) {
  const std::string rank = absl::StrCat(transport.rank().value());
  const at::Tensor tensor = PatternTensor(c10::kFloat, 1 << 20, 1);
  if (transport.rank() == kVictim) {
    (void)store.Set(absl::StrCat("ready/", rank), "");
    (void)testutil::ReceiveAndWait(transport, Rank(0), ChannelKind::kActivation, EmptyLike(tensor));
    return;
  }
  auto receive = transport.Receive(kVictim, ChannelKind::kActivation, EmptyLike(tensor));
  (void)store.Set(absl::StrCat("ready/", rank), "");
  (void)store.Set(absl::StrCat("result/", rank), (*receive)->Wait().ToString());
  const absl::Status status =
      transport.rank() == Rank(0)
          ? testutil::SendAndWait(transport, Rank(2), ChannelKind::kActivation, tensor)
          : testutil::ReceiveAndWait(transport, Rank(0), ChannelKind::kActivation,
                                     EmptyLike(tensor));
  (void)store.Set(absl::StrCat("after/", rank), status.ToString());
}

// Exchanges large messages in both directions until that fails.
void PlayStreaming(Transport& transport, KeyValueStore& store) {
  const Rank peer(1 - transport.rank().value());
  const at::Tensor tensor = PatternTensor(c10::kFloat, 4 << 20, 1);
  absl::Status status;
  for (int i = 0; status.ok(); ++i) {
    if (transport.rank() == kVictim) (void)store.Set(absl::StrCat("progress/", i), "");
    auto receive = transport.Receive(peer, ChannelKind::kGradient, EmptyLike(tensor));
    auto send = transport.Send(peer, ChannelKind::kGradient, tensor);
    status = receive.ok() ? (*receive)->Wait() : receive.status();
    if (status.ok()) status = send.ok() ? (*send)->Wait() : send.status();
  }
  (void)store.Set(absl::StrCat("result/", transport.rank().value()), status.ToString());
}

// `role` is "name rank size".
void PlayRole(const std::string& role) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  const std::vector<std::string> words = absl::StrSplit(role, ' ');
  int32_t rank = 0, size = 0;
  if (words.size() != 3 || !absl::SimpleAtoi(words[1], &rank) || !absl::SimpleAtoi(words[2], &size))
    return;
  int num_sets = 0;
  std::shared_ptr<KeyValueStore> store = testutil::ConnectStore(kStoreFd, [&](const std::string&) {
    // The first key says that the rank is here, the second is its address.
    if (words[0] == "die_connecting" && Rank(rank) == kVictim && ++num_sets == 2) raise(SIGKILL);
  });
  auto transport =
      MakeGlooTransport({.rank = Rank(rank),
                         .size = size,
                         .member_names = testutil::MemberNames(size),
                         .store = store,
                         .connect_timeout = words[0] == "die_connecting" ? absl::Seconds(2) : kLong,
                         .transfer_timeout = words[0] == "stopped" ? absl::Seconds(1) : kLong});
  if (!transport.ok()) {
    (void)store->Set(absl::StrCat("result/", rank), transport.status().ToString());
  } else if (words[0] == "streaming") {
    PlayStreaming(**transport, *store);
  } else {
    PlayWaiting(**transport, *store);
  }
}

const bool kIsTest = [] {
  if (const char* role = std::getenv("SMARTPIPE_TEST_ROLE"); role != nullptr) {
    PlayRole(role);
    _exit(0);
  }
  return true;
}();

// ---- In the test ----

class KilledRank : public testing::Test {
 protected:
  ~KilledRank() override {
    for (Child& child : children_) {
      kill(child.pid, SIGKILL);
      waitpid(child.pid, nullptr, 0);
      child.server.join();
    }
  }

  void Start(const std::string& role, int32_t size) {
    for (int32_t rank = 0; rank < size; ++rank) {
      int fds[2];
      ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
      posix_spawn_file_actions_t actions;
      posix_spawn_file_actions_init(&actions);
      // dup2 onto itself would keep the close-on-exec flag.
      const int child_fd = fds[1] == kStoreFd ? dup(fds[1]) : fds[1];
      posix_spawn_file_actions_adddup2(&actions, child_fd, kStoreFd);
      std::string environment = absl::StrCat("SMARTPIPE_TEST_ROLE=", role, " ", rank, " ", size);
      std::vector<char*> env = {environment.data()};
      for (char** entry = environ; *entry != nullptr; ++entry) env.push_back(*entry);
      env.push_back(nullptr);
      std::string name = absl::StrCat("rank", rank);
      char* argv[] = {name.data(), nullptr};
      pid_t pid = 0;
      ASSERT_EQ(posix_spawn(&pid, "/proc/self/exe", &actions, nullptr, argv, env.data()), 0);
      posix_spawn_file_actions_destroy(&actions);
      close(fds[1]);
      if (child_fd != fds[1]) close(child_fd);
      children_.push_back(
          {pid, std::thread([this, fd = fds[0]] { testutil::ServeStore(fd, store_); })});
    }
  }

  void Signal(Rank rank, int signal) {
    kill(children_[static_cast<size_t>(rank.value())].pid, signal);
  }

  // Waits for the key; "" after a minute, which also fails the test.
  std::string Result(const std::string& key) {
    absl::StatusOr<std::string> value = store_.Get(key, kLong);
    EXPECT_TRUE(value.ok()) << value.status();
    return value.ok() ? *value : "";
  }

  MemoryKeyValueStore store_;

 private:
  struct Child {
    pid_t pid;
    std::thread server;
  };
  std::vector<Child> children_;
};

TEST_F(KilledRank, IsNamedByAllOthersAtOnce) {
  Start("waiting", 3);
  ASSERT_EQ(store_.Wait({"ready/0", "ready/1", "ready/2"}, kLong), absl::OkStatus());
  const absl::Time before = absl::Now();
  Signal(kVictim, SIGKILL);
  EXPECT_THAT(Result("result/0"), HasSubstr("UNAVAILABLE: rank 1 (w1) closed the connection"));
  EXPECT_THAT(Result("result/2"), HasSubstr("UNAVAILABLE: rank 1 (w1) closed the connection"));
  EXPECT_LT(absl::Now() - before, absl::Seconds(1));
  RecordProperty("milliseconds", absl::StrCat(absl::ToInt64Milliseconds(absl::Now() - before)));
  EXPECT_EQ(Result("after/0"), "OK");
  EXPECT_EQ(Result("after/2"), "OK");
}

TEST_F(KilledRank, InTheMiddleOfAStream) {
  std::mt19937_64 random(testutil::TestSeed());
  Start("streaming", 2);
  ASSERT_EQ(store_.Wait({absl::StrCat("progress/", 1 + random() % 20)}, kLong), absl::OkStatus());
  const absl::Time before = absl::Now();
  Signal(kVictim, SIGKILL);
  EXPECT_THAT(Result("result/0"), HasSubstr("UNAVAILABLE: rank 1 (w1) closed the connection"));
  EXPECT_LT(absl::Now() - before, absl::Seconds(1));
}

// A stopped process keeps its sockets open: only the deadline tells.
TEST_F(KilledRank, WhenOnlyStoppedIsNamedAfterTheDeadline) {
  Start("stopped", 3);
  ASSERT_EQ(store_.Wait({"ready/0", "ready/1", "ready/2"}, kLong), absl::OkStatus());
  Signal(kVictim, SIGSTOP);
  EXPECT_THAT(Result("result/0"),
              HasSubstr("DEADLINE_EXCEEDED: rank 1 (w1) did not send activation message 0"));
  Signal(kVictim, SIGKILL);
}

TEST_F(KilledRank, WhileConnectingEndsTheOthersInTime) {
  Start("die_connecting", 2);
  const absl::Time before = absl::Now();
  // Which one depends on whether the connection was in the victim's queue already.
  EXPECT_THAT(Result("result/0"),
              testing::AnyOf(HasSubstr("UNAVAILABLE: all 2 workers came, but they cannot connect"),
                             HasSubstr("UNAVAILABLE: rank 1 (w1) closed the connection")));
  EXPECT_LT(absl::Now() - before, absl::Seconds(10));
}

}  // namespace
}  // namespace smartpipe
