// A link that is cut in silence is noticed on both sides within seconds.
#include <iostream>
#include <memory>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/rpc/channel.h"
#include "tests/component/freeze_service/service_harness.h"
#include "tests/testutil/forwarder.h"

namespace smartpipe {
namespace {

using testing::HasSubstr;

std::shared_ptr<grpc::Channel> ChannelTo(const std::string& address) {
  return MakeChannel({.address = address, .keepalive = {}, .tls = {}});
}

TEST(CutLink, IsNoticedByServiceWorkerAndWatcher) {
  ServiceHarness harness;
  testutil::Forwarder link(harness.address());
  FakeWorker near(harness.Channel(), "w0"), far(ChannelTo(link.address()), "w1");
  for (FakeWorker* worker : {&near, &far}) {
    ASSERT_TRUE(worker->Welcomed());
    ASSERT_TRUE(worker->Announce().ok());
  }
  EXPECT_TRUE(near.NextBut(v1::JoinResponse::kWaiting).has_assignment());
  const auto stub = v1::FreezeService::NewStub(ChannelTo(link.address()));
  grpc::ClientContext context;
  // As those of the workers: by then it would be too late.
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
  const auto watch = stub->WatchRun(&context, v1::WatchRunRequest());
  v1::WatchRunResponse message;
  ASSERT_TRUE(watch->Read(&message));

  link.Cut();
  const absl::Time cut = absl::Now();
  const v1::EndOfGeneration end = near.NextBut(v1::JoinResponse::kVerdict).end_of_generation();
  EXPECT_THAT(end.reason(), HasSubstr("\"w1\" (stage 1, layers [2,4)) was lost"));
  while (watch->Read(&message)) {
  }
  EXPECT_EQ(watch->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(far.EndOfStream().error_code(), grpc::StatusCode::UNAVAILABLE);
  std::cout << "noticed after " << absl::Now() - cut << "\n";
}

}  // namespace
}  // namespace smartpipe
