#include "tests/component/transport/process_store.h"

#include <sys/socket.h>
#include <unistd.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"

namespace smartpipe::testutil {
namespace {

enum class Call : int64_t { kSet, kGet, kAdd, kCompareAndSet, kCheck, kWait, kDelete, kNumKeys };

// A request is {call, number, strings}; a reply {status code, number, {text}}.
struct Frame {
  int64_t code = 0;
  int64_t number = 0;
  std::vector<std::string> strings;
};

bool WriteAll(int fd, const void* data, size_t size) {
  const char* bytes = static_cast<const char*>(data);
  while (size > 0) {
    const ssize_t written = send(fd, bytes, size, MSG_NOSIGNAL);
    if (written <= 0) return false;
    bytes += written;
    size -= static_cast<size_t>(written);
  }
  return true;
}

bool ReadAll(int fd, void* data, size_t size) {
  return size == 0 || recv(fd, data, size, MSG_WAITALL) == static_cast<ssize_t>(size);
}

bool WriteFrame(int fd, const Frame& frame) {
  const int64_t head[] = {frame.code, frame.number, static_cast<int64_t>(frame.strings.size())};
  if (!WriteAll(fd, head, sizeof(head))) return false;
  for (const std::string& text : frame.strings) {
    const int64_t size = static_cast<int64_t>(text.size());
    if (!WriteAll(fd, &size, sizeof(size)) || !WriteAll(fd, text.data(), text.size())) return false;
  }
  return true;
}

bool ReadFrame(int fd, Frame& frame) {
  int64_t head[3];
  if (!ReadAll(fd, head, sizeof(head))) return false;
  frame = {.code = head[0],
           .number = head[1],
           .strings = std::vector<std::string>(static_cast<size_t>(head[2]))};
  for (std::string& text : frame.strings) {
    int64_t size = 0;
    if (!ReadAll(fd, &size, sizeof(size))) return false;
    text.resize(static_cast<size_t>(size));
    if (!ReadAll(fd, text.data(), text.size())) return false;
  }
  return true;
}

class ProcessStore final : public KeyValueStore {
 public:
  ProcessStore(int fd, std::function<void(const std::string&)> after_set)
      : fd_(fd), after_set_(std::move(after_set)) {}
  absl::Status Set(const std::string& key, const std::string& value) override {
    const absl::Status status = Ask(Call::kSet, 0, {key, value}).status();
    if (after_set_) after_set_(key);
    return status;
  }
  absl::StatusOr<std::string> Get(const std::string& key, absl::Duration timeout) override {
    return Text(Ask(Call::kGet, absl::ToInt64Milliseconds(timeout), {key}));
  }
  absl::StatusOr<int64_t> Add(const std::string& key, int64_t amount) override {
    return Number(Ask(Call::kAdd, amount, {key}));
  }
  absl::StatusOr<std::string> CompareAndSet(const std::string& key, const std::string& expected,
                                            const std::string& desired) override {
    return Text(Ask(Call::kCompareAndSet, 0, {key, expected, desired}));
  }
  absl::StatusOr<bool> Check(const std::vector<std::string>& keys) override {
    return Bool(Ask(Call::kCheck, 0, keys));
  }
  absl::Status Wait(const std::vector<std::string>& keys, absl::Duration timeout) override {
    return Ask(Call::kWait, absl::ToInt64Milliseconds(timeout), keys).status();
  }
  absl::StatusOr<bool> Delete(const std::string& key) override {
    return Bool(Ask(Call::kDelete, 0, {key}));
  }
  absl::StatusOr<int64_t> NumKeys() override { return Number(Ask(Call::kNumKeys, 0, {})); }
  void Cancel() override { shutdown(fd_, SHUT_RDWR); }

 private:
  absl::StatusOr<Frame> Ask(Call call, int64_t number, std::vector<std::string> strings) {
    absl::MutexLock lock(&mutex_);
    Frame reply;
    if (!WriteFrame(fd_, {static_cast<int64_t>(call), number, std::move(strings)}) ||
        !ReadFrame(fd_, reply)) {
      return absl::UnavailableError("the test that started this process is gone");
    }
    if (reply.code != 0)
      return absl::Status(static_cast<absl::StatusCode>(reply.code), reply.strings[0]);
    return reply;
  }
  static absl::StatusOr<std::string> Text(absl::StatusOr<Frame> reply) {
    if (!reply.ok()) return reply.status();
    return std::move(reply->strings[0]);
  }
  static absl::StatusOr<int64_t> Number(const absl::StatusOr<Frame>& reply) {
    if (!reply.ok()) return reply.status();
    return reply->number;
  }
  static absl::StatusOr<bool> Bool(const absl::StatusOr<Frame>& reply) {
    if (!reply.ok()) return reply.status();
    return reply->number != 0;
  }

  const int fd_;
  const std::function<void(const std::string&)> after_set_;
  absl::Mutex mutex_;
};

Frame Reply(const absl::Status& status, int64_t number = 0, std::string text = "") {
  if (!status.ok())
    return {static_cast<int64_t>(status.code()), 0, {std::string(status.message())}};
  return {0, number, {std::move(text)}};
}

template <typename T>
Frame NumberReply(const absl::StatusOr<T>& result) {
  return Reply(result.status(), result.ok() ? static_cast<int64_t>(*result) : 0);
}

Frame TextReply(const absl::StatusOr<std::string>& result) {
  return Reply(result.status(), 0, result.ok() ? *result : "");
}

Frame Answer(const Frame& request, KeyValueStore& store) {
  const std::vector<std::string>& strings = request.strings;
  const absl::Duration timeout = absl::Milliseconds(request.number);
  switch (static_cast<Call>(request.code)) {
    case Call::kSet:
      return Reply(store.Set(strings[0], strings[1]));
    case Call::kGet:
      return TextReply(store.Get(strings[0], timeout));
    case Call::kAdd:
      return NumberReply(store.Add(strings[0], request.number));
    case Call::kCompareAndSet:
      return TextReply(store.CompareAndSet(strings[0], strings[1], strings[2]));
    case Call::kCheck:
      return NumberReply(store.Check(strings));
    case Call::kWait:
      return Reply(store.Wait(strings, timeout));
    case Call::kDelete:
      return NumberReply(store.Delete(strings[0]));
    case Call::kNumKeys:
      return NumberReply(store.NumKeys());
  }
  return Reply(absl::UnimplementedError(absl::StrCat("call ", request.code)));
}

}  // namespace

std::unique_ptr<KeyValueStore> ConnectStore(int fd,
                                            std::function<void(const std::string& key)> after_set) {
  return std::make_unique<ProcessStore>(fd, std::move(after_set));
}

void ServeStore(int fd, KeyValueStore& store) {
  Frame request;
  while (ReadFrame(fd, request) && WriteFrame(fd, Answer(request, store))) {
  }
  close(fd);
}

}  // namespace smartpipe::testutil
