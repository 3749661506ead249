// Every rpc of both services with messages that nobody would send: whatever comes, nothing crashes,
// a refused message changes nothing, and memory stays flat.
//
// SMARTPIPE_FUZZ_CALLS sets how many calls are made; docs/results tells of a million.
#include <unistd.h>

#include <cmath>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/dynamic_message.h"
#include "google/protobuf/message.h"
#include "grpcpp/generic/generic_stub.h"
#include "gtest/gtest.h"
#include "services/parameter_service/parameter_service_impl.h"
#include "smartpipe/v1/parameter_service.grpc.pb.h"
#include "tests/component/freeze_service/service_harness.h"
#include "tests/testutil/dice.h"
#include "tests/testutil/seed.h"

namespace smartpipe {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::MethodDescriptor;
using google::protobuf::Reflection;
using testutil::Dice;

constexpr int64_t kCallsDefault = 20'000;
constexpr int64_t kCallsPerRun = 1000;

/// Megabytes of this process in memory.
int64_t ResidentMb() {
  std::ifstream file("/proc/self/statm");
  int64_t total = 0, resident = 0;
  file >> total >> resident;
  return resident * sysconf(_SC_PAGESIZE) / (1 << 20);
}

/// Messages whose fields hold what is meant, what is nearly so, and what nobody means.
class Author {
 public:
  explicit Author(Dice* dice) : dice_(*dice) {}

  void Fill(Message* message, int depth = 0) {
    const Descriptor* type = message->GetDescriptor();
    for (int i = 0; i < type->field_count(); ++i) {
      const FieldDescriptor* field = type->field(i);
      if (dice_.OneIn(4)) continue;
      if (!field->is_repeated()) {
        Set(message, field, depth, false);
        continue;
      }
      const int64_t count = dice_.OneIn(60) ? 5000 : dice_.Below(5);
      for (int64_t n = 0; n < count; ++n) Set(message, field, depth, true);
    }
  }

 private:
  int64_t Whole() {
    return dice_.OneOf<int64_t>({0, 1, 2, 3, 4, 10, 20, 30, 40, -1, -7, 100, 1 << 20, 1LL << 40,
                                 std::numeric_limits<int64_t>::max(),
                                 std::numeric_limits<int64_t>::min()});
  }
  double Real() {
    return dice_.OneOf<double>({0, 0.001, 0.5, 1, -1, 1e300, -1e300, 5e-324,
                                std::numeric_limits<double>::quiet_NaN(),
                                std::numeric_limits<double>::infinity()});
  }
  std::string Text(const std::string& name) {
    if (dice_.OneIn(50)) return std::string(static_cast<size_t>(dice_.Below(1 << 17)), 'x');
    if (dice_.OneIn(20)) return std::string("\0\xff\xfe\n\"{}", 7);
    if (name == "worker_id")
      return dice_.OneOf<std::string>({"w0", "w1", "w2", "", "W!", std::string(64, 'a')});
    if (name == "request_id") return dice_.OneOf<std::string>({"", "r1", "r2", "r3", "a b"});
    if (name == "run" || name == "run_id") return dice_.OneOf<std::string>({"a", "b", "../x", ""});
    if (absl::StrContains(name, "sha256") || absl::StrContains(name, "digest"))
      return std::string(dice_.OneIn(2) ? 64 : 32, 'a');
    return dice_.OneOf<std::string>({"", "smartpipe", "full", "stem", "0", "gone"});
  }

  void Set(Message* message, const FieldDescriptor* field, int depth, bool add) {
    const Reflection* reflection = message->GetReflection();
    const auto put = [&](auto set, auto append, auto value) {
      add ? (reflection->*append)(message, field, value)
          : (reflection->*set)(message, field, value);
    };
    switch (field->cpp_type()) {
      case FieldDescriptor::CPPTYPE_INT32:
        return put(&Reflection::SetInt32, &Reflection::AddInt32, static_cast<int32_t>(Whole()));
      case FieldDescriptor::CPPTYPE_INT64:
        return put(&Reflection::SetInt64, &Reflection::AddInt64, Whole());
      case FieldDescriptor::CPPTYPE_UINT32:
        return put(&Reflection::SetUInt32, &Reflection::AddUInt32, static_cast<uint32_t>(Whole()));
      case FieldDescriptor::CPPTYPE_UINT64:
        return put(&Reflection::SetUInt64, &Reflection::AddUInt64, static_cast<uint64_t>(Whole()));
      case FieldDescriptor::CPPTYPE_DOUBLE:
        return put(&Reflection::SetDouble, &Reflection::AddDouble, Real());
      case FieldDescriptor::CPPTYPE_FLOAT:
        return put(&Reflection::SetFloat, &Reflection::AddFloat, static_cast<float>(Real()));
      case FieldDescriptor::CPPTYPE_BOOL:
        return put(&Reflection::SetBool, &Reflection::AddBool, dice_.OneIn(2));
      case FieldDescriptor::CPPTYPE_ENUM:
        return put(&Reflection::SetEnumValue, &Reflection::AddEnumValue,
                   static_cast<int>(dice_.Below(5)));
      case FieldDescriptor::CPPTYPE_STRING:
        if (add) {
          reflection->AddString(message, field, Text(field->name()));
        } else {
          reflection->SetString(message, field, Text(field->name()));
        }
        return;
      case FieldDescriptor::CPPTYPE_MESSAGE:
        if (depth > 3) return;
        Fill(add ? reflection->AddMessage(message, field)
                 : reflection->MutableMessage(message, field),
             depth + 1);
    }
  }

  Dice& dice_;
};

/// Calls of one service over one channel.
///
/// One that `withdraws` also joins as a worker and cancels calls in the middle. What such a call
/// has done, or will still do, nobody can tell: only without them is a refused call known to have
/// changed nothing.
class Caller {
 public:
  Caller(std::shared_ptr<grpc::Channel> channel, const std::string& service, bool withdraws,
         Dice* dice)
      : stub_(channel), withdraws_(withdraws), dice_(*dice), author_(dice) {
    const auto* type =
        google::protobuf::DescriptorPool::generated_pool()->FindServiceByName(service);
    for (int i = 0; i < type->method_count(); ++i) {
      if (withdraws || type->method(i)->name() != "Join") methods_.push_back(type->method(i));
    }
  }

  /// One call; OK, or why not.
  grpc::Status Call() {
    const MethodDescriptor* method = dice_.OneOf(methods_);
    // These may wait for what never comes: less often, or they would take all the time.
    if ((method->name() == "GetKeys" || method->name() == "Join") && !dice_.OneIn(10))
      return Call();
    last_ = method->full_name();
    const std::string path = absl::StrCat("/", method->service()->full_name(), "/", method->name());
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() +
                         (method->name() == "GetKeys" ? std::chrono::milliseconds(5)
                                                      : std::chrono::milliseconds(20'000)));
    grpc::CompletionQueue queue;
    auto stream = stub_.PrepareCall(&context, path, &queue);
    stream->StartCall(Tag(1));
    bool ok = Next(queue);
    const int64_t num_messages = method->client_streaming() ? dice_.Below(4) : 1;
    const bool in_turn = method->client_streaming() && method->server_streaming();
    num_answers_ = 0;
    for (int64_t i = 0; ok && i < num_messages; ++i) {
      stream->Write(MakeMessage(*method), Tag(2));
      ok = Next(queue);
      if (withdraws_ && dice_.OneIn(200)) context.TryCancel();
      if (!in_turn || !ok) continue;
      grpc::ByteBuffer answer;
      stream->Read(&answer, Tag(4));
      ok = Next(queue);
      num_answers_ += ok;
    }
    if (ok) {
      stream->WritesDone(Tag(3));
      ok = Next(queue);
    }
    int64_t num_reads = in_turn ? 0 : method->server_streaming() ? dice_.Below(2) : 2;
    for (; ok && num_reads > 0; --num_reads) {
      grpc::ByteBuffer answer;
      stream->Read(&answer, Tag(4));
      ok = Next(queue);
    }
    if (method->server_streaming() && !in_turn) context.TryCancel();
    grpc::Status status;
    stream->Finish(&status, Tag(5));
    Next(queue);
    queue.Shutdown();
    while (Next(queue)) {
    }
    return status;
  }
  const std::string& last() const { return last_; }
  /// Messages of a stream that were answered before its end.
  int64_t num_answers() const { return num_answers_; }

 private:
  static void* Tag(intptr_t tag) { return reinterpret_cast<void*>(tag); }
  static bool Next(grpc::CompletionQueue& queue) {
    void* tag = nullptr;
    bool ok = false;
    return queue.Next(&tag, &ok) && ok;
  }

  grpc::ByteBuffer MakeMessage(const MethodDescriptor& method) {
    std::string bytes;
    if (dice_.OneIn(30)) {
      bytes.resize(static_cast<size_t>(dice_.Below(200)));
      for (char& byte : bytes) byte = static_cast<char>(dice_.Below(256));
    } else {
      std::unique_ptr<Message> message(google::protobuf::MessageFactory::generated_factory()
                                           ->GetPrototype(method.input_type())
                                           ->New());
      author_.Fill(message.get());
      bytes = message->SerializePartialAsString();
      if (dice_.OneIn(30)) bytes.resize(bytes.size() / 2);
    }
    const grpc::Slice slice(bytes);
    return grpc::ByteBuffer(&slice, 1);
  }

  grpc::TemplatedGenericStub<grpc::ByteBuffer, grpc::ByteBuffer> stub_;
  const bool withdraws_;
  Dice& dice_;
  Author author_;
  std::vector<const MethodDescriptor*> methods_;
  std::string last_;
  int64_t num_answers_ = 0;
};

int64_t NumCalls() {
  int64_t calls = kCallsDefault;
  if (const char* wanted = std::getenv("SMARTPIPE_FUZZ_CALLS"); wanted != nullptr) {
    EXPECT_TRUE(absl::SimpleAtoi(wanted, &calls)) << wanted;
  }
  return calls;
}

/// What refused calls must leave as it is: all that can be asked of the run.
std::string StateOf(v1::FreezeService::Stub& stub) {
  v1::GetRunResponse run;
  v1::ListVerdictsRequest all;
  all.set_page_size(1000);
  v1::ListVerdictsResponse verdicts;
  v1::ListOrdersResponse orders;
  v1::ListLayersResponse layers;
  using Stub = v1::FreezeService::Stub;
  EXPECT_TRUE(CallStub(stub, &Stub::GetRun, v1::GetRunRequest(), &run).ok());
  EXPECT_TRUE(CallStub(stub, &Stub::ListVerdicts, all, &verdicts).ok());
  EXPECT_TRUE(CallStub(stub, &Stub::ListOrders, v1::ListOrdersRequest(), &orders).ok());
  EXPECT_TRUE(CallStub(stub, &Stub::ListLayers, v1::ListLayersRequest(), &layers).ok());
  run.mutable_run()->clear_now_us();
  return absl::StrCat(run.ShortDebugString(), verdicts.SerializeAsString(),
                      orders.SerializeAsString(), layers.SerializeAsString());
}

TEST(RpcFuzz, TheFreezeServiceStaysWhatItIs) {
  Dice dice(testutil::TestSeed());
  const int64_t num_calls = NumCalls();
  int64_t num_refused = 0, num_compared = 0, warm_mb = 0;
  std::set<std::string> answered;
  for (int64_t done = 0; done < num_calls && !HasFailure(); done += kCallsPerRun) {
    ServiceHarness harness({.parameter_service = dice.OneIn(2) ? "127.0.0.1:1" : ""});
    std::unique_ptr<StartedRun> run;
    if (!dice.OneIn(4)) run = std::make_unique<StartedRun>(harness.InProcessChannel());
    const auto stub = v1::FreezeService::NewStub(harness.InProcessChannel());
    const bool withdraws = done / kCallsPerRun % 2 == 1;
    Caller caller(harness.InProcessChannel(), FreezeServiceImpl::kName, withdraws, &dice);
    std::string state = StateOf(*stub);
    for (int64_t i = 0; i < kCallsPerRun; ++i) {
      const grpc::Status status = caller.Call();
      if (status.ok()) answered.insert(caller.last());
      num_refused += !status.ok();
      // Bytes that are no message: gRPC says so without a word.
      ASSERT_TRUE(status.error_code() != grpc::StatusCode::INTERNAL ||
                  status.error_message().empty())
          << caller.last() << ": " << status.error_message();
      ASSERT_NE(status.error_code(), grpc::StatusCode::UNKNOWN)
          << caller.last() << ": " << status.error_message();
      if (withdraws) continue;
      const std::string before = std::exchange(state, StateOf(*stub));
      if (status.ok() || caller.num_answers() > 0) continue;
      ASSERT_EQ(state, before) << caller.last() << " was refused: " << status.error_message();
      ++num_compared;
    }
    if (done * 10 < num_calls) warm_mb = ResidentMb();
  }
  std::cout << num_calls << " calls, " << num_refused << " refused, " << num_compared
            << " of them compared, " << answered.size() << " rpcs answered; " << warm_mb
            << " MB after a tenth, " << ResidentMb() << " MB at the end\n";
  EXPECT_GT(num_refused, num_calls / 4);
  EXPECT_GT(num_compared, num_calls / 4);
  EXPECT_GT(answered.size(), 12u);
  EXPECT_LT(ResidentMb(), warm_mb + 100);
}

TEST(RpcFuzz, TheParameterServiceStaysWhatItIs) {
  Dice dice(testutil::TestSeed() + 1);
  const int64_t num_calls = NumCalls() / 4;
  int64_t num_refused = 0, num_compared = 0;
  for (const bool withdraws : {false, true}) {
    testutil::TempDir dir;
    ParameterServiceImpl service(LayerStore::Open({dir.path(), 0}).value());
    const auto server = StartServer({}, {{ParameterServiceImpl::kName, &service}}).value();
    const auto stub = v1::ParameterService::NewStub(server->InProcessChannel());
    Caller caller(server->InProcessChannel(), ParameterServiceImpl::kName, withdraws, &dice);
    const auto state = [&] {
      std::string text;
      for (const char* run : {"a", "b"}) {
        grpc::ClientContext context;
        v1::ListCheckpointsRequest request;
        request.set_run_id(run);
        v1::ListCheckpointsResponse response;
        EXPECT_TRUE(stub->ListCheckpoints(&context, request, &response).ok());
        text += response.ShortDebugString();
      }
      return text;
    };
    std::string now = state();
    for (int64_t i = 0; i < num_calls / 2 && !HasFailure(); ++i) {
      const grpc::Status status = caller.Call();
      num_refused += !status.ok();
      ASSERT_NE(status.error_code(), grpc::StatusCode::UNKNOWN)
          << caller.last() << ": " << status.error_message();
      if (withdraws) continue;
      const std::string before = std::exchange(now, state());
      if (status.ok()) continue;
      ASSERT_EQ(now, before) << caller.last() << " was refused: " << status.error_message();
      ++num_compared;
    }
    server->Shutdown(absl::ZeroDuration());
  }
  std::cout << num_calls << " calls, " << num_refused << " refused, " << num_compared
            << " of them compared\n";
  EXPECT_GT(num_refused, num_calls / 4);
  EXPECT_GT(num_compared, num_calls / 4);
}

}  // namespace
}  // namespace smartpipe
