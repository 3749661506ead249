// A client that knows nothing of our API can list and describe it.
#include <memory>
#include <string>

#include "gmock/gmock.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"
#include "google/protobuf/text_format.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "grpcpp/generic/generic_stub.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"
#include "tests/component/freeze_service/service_harness.h"

namespace smartpipe {
namespace {

using testing::HasSubstr;

std::unique_ptr<google::protobuf::Message> NewMessage(const std::string& name) {
  const google::protobuf::Descriptor* type =
      google::protobuf::DescriptorPool::generated_pool()->FindMessageTypeByName(name);
  EXPECT_NE(type, nullptr) << name;
  return std::unique_ptr<google::protobuf::Message>(
      google::protobuf::MessageFactory::generated_factory()->GetPrototype(type)->New());
}

/// Asks one question (a ServerReflectionRequest in text form) and returns the answer in text form.
/// The distributions package no header for the reflection messages, so they are used by their
/// descriptors.
std::string Reflect(std::shared_ptr<grpc::Channel> channel, const std::string& question) {
  auto request = NewMessage("grpc.reflection.v1alpha.ServerReflectionRequest");
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(question, request.get()));
  const std::string bytes = request->SerializeAsString();
  grpc::Slice slice(bytes);

  grpc::GenericStub stub(channel);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(10));
  grpc::CompletionQueue queue;
  void* tag = nullptr;
  bool ok = false;
  auto stream = stub.PrepareCall(
      &context, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", &queue);
  grpc::ByteBuffer answer;
  stream->StartCall(nullptr);
  EXPECT_TRUE(queue.Next(&tag, &ok) && ok);
  stream->WriteLast(grpc::ByteBuffer(&slice, 1), grpc::WriteOptions(), nullptr);
  EXPECT_TRUE(queue.Next(&tag, &ok) && ok);
  stream->Read(&answer, nullptr);
  EXPECT_TRUE(queue.Next(&tag, &ok) && ok);
  grpc::Status status;
  stream->Finish(&status, nullptr);
  EXPECT_TRUE(queue.Next(&tag, &ok));
  EXPECT_TRUE(status.ok()) << status.error_message();

  grpc::Slice whole;
  EXPECT_TRUE(answer.DumpToSingleSlice(&whole).ok());
  auto response = NewMessage("grpc.reflection.v1alpha.ServerReflectionResponse");
  EXPECT_TRUE(response->ParseFromArray(whole.begin(), static_cast<int>(whole.size())));
  return response->DebugString();
}

TEST(Reflection, ListsTheServices) {
  ServiceHarness harness;
  const std::string answer = Reflect(harness.Channel(), "list_services: ''");
  EXPECT_THAT(answer, HasSubstr("\"smartpipe.v1.FreezeService\""));
  EXPECT_THAT(answer, HasSubstr("\"grpc.health.v1.Health\""));
}

TEST(Reflection, DescribesOurServiceAndHealth) {
  ServiceHarness harness;
  const std::string ours =
      Reflect(harness.Channel(), "file_containing_symbol: 'smartpipe.v1.FreezeService'");
  EXPECT_THAT(ours, HasSubstr("ListVerdicts"));
  EXPECT_THAT(ours, testing::Not(HasSubstr("error_response")));
  const std::string health =
      Reflect(harness.Channel(), "file_containing_symbol: 'grpc.health.v1.Health'");
  EXPECT_THAT(health, HasSubstr("HealthCheckRequest"));
  EXPECT_THAT(health, testing::Not(HasSubstr("error_response")));
}

TEST(Health, IsServing) {
  ServiceHarness harness;
  auto stub = grpc::health::v1::Health::NewStub(harness.Channel());
  grpc::ClientContext context;
  grpc::health::v1::HealthCheckRequest request;
  request.set_service(FreezeServiceImpl::kName);
  grpc::health::v1::HealthCheckResponse response;
  ASSERT_TRUE(stub->Check(&context, request, &response).ok());
  EXPECT_EQ(response.status(), grpc::health::v1::HealthCheckResponse::SERVING);
}

}  // namespace
}  // namespace smartpipe
