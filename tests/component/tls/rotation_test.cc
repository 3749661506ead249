// Certificates that change on the disk while servers and channels use them.
#include <memory>
#include <string>

#include "gmock/gmock.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "gtest/gtest.h"
#include "services/base/files.h"
#include "services/rpc/channel.h"
#include "services/rpc/server.h"
#include "tests/testutil/certificates.h"

namespace smartpipe {
namespace {

using grpc::health::v1::Health;
using testutil::Eventually;
using testutil::TestAuthority;

constexpr absl::Duration kLong = absl::Seconds(30);

void Copy(const TlsFiles& from, const TlsFiles& to) {
  for (std::string TlsFiles::*path : {&TlsFiles::key, &TlsFiles::cert, &TlsFiles::ca}) {
    ASSERT_TRUE(WriteFileAtomically(to.*path, testutil::ReadFile(from.*path)).ok());
  }
}

class Rotation : public testing::Test {
 protected:
  Rotation() {
    RpcServerOptions options;
    options.tls = server_files_;
    server_ = StartServer(options, {}).value();
  }

  std::shared_ptr<grpc::Channel> Channel(const TlsFiles& files) {
    return MakeChannel({.address = server_->address(), .keepalive = {}, .tls = files});
  }
  /// One call; `server_cert` becomes the certificate that the server showed.
  static bool Works(const std::shared_ptr<grpc::Channel>& channel,
                    std::string* server_cert = nullptr) {
    grpc::ClientContext context;
    SetTimeout(context, absl::Seconds(10));
    grpc::health::v1::HealthCheckResponse response;
    if (!Health::NewStub(channel)->Check(&context, {}, &response).ok()) return false;
    if (server_cert != nullptr) {
      const auto shown = context.auth_context()->FindPropertyValues("x509_pem_cert");
      *server_cert = std::string(shown.at(0).data(), shown.at(0).size());
    }
    return true;
  }

  TestAuthority old_, new_;
  TlsFiles server_files_ = old_.MakeService();
  std::unique_ptr<RpcServer> server_;
};

TEST_F(Rotation, AServerShowsItsNewCertificate) {
  const TlsFiles client = old_.Make(Role::kViewer);
  const std::shared_ptr<grpc::Channel> before = Channel(client);
  ASSERT_TRUE(Works(before));
  old_.MakeService();  // over the files that the server watches
  std::string shown;
  EXPECT_TRUE(Eventually(
      [&] {
        return Works(Channel(client), &shown) && shown == testutil::ReadFile(server_files_.cert);
      },
      kLong));
  EXPECT_TRUE(Works(before)) << "connections that are open stay";
}

TEST_F(Rotation, AServerChangesItsAuthority) {
  const TlsFiles old_client = old_.Make(Role::kViewer), new_client = new_.Make(Role::kViewer);
  ASSERT_TRUE(Works(Channel(old_client)));
  EXPECT_FALSE(Works(Channel(new_client)));
  Copy(new_.MakeService(), server_files_);
  EXPECT_TRUE(Eventually([&] { return Works(Channel(new_client)); }, kLong));
  EXPECT_FALSE(Works(Channel(old_client)));
}

// How an authority is changed without a gap: both, then the new one alone.
TEST_F(Rotation, AFileOfTwoAuthoritiesAcceptsBoth) {
  const TlsFiles old_client = old_.Make(Role::kViewer);
  TlsFiles new_client = new_.Make(Role::kViewer);
  const std::string both = testutil::ReadFile(old_client.ca) + testutil::ReadFile(new_client.ca);
  ASSERT_TRUE(WriteFileAtomically(new_client.ca, both).ok());
  ASSERT_TRUE(WriteFileAtomically(server_files_.ca, both).ok());
  EXPECT_TRUE(Eventually([&] { return Works(Channel(new_client)); }, kLong));
  EXPECT_TRUE(Works(Channel(old_client)));
}

TEST_F(Rotation, AChannelTakesItsNewCertificate) {
  const TlsFiles expired = old_.Make({.name = "late", .roles = {Role::kViewer}, .hosts = {}},
                                     -absl::Hours(2), -absl::Hours(1));
  const std::shared_ptr<grpc::Channel> channel = Channel(expired);
  EXPECT_FALSE(Works(channel));
  old_.Make({.name = "late", .roles = {Role::kViewer}, .hosts = {}});
  EXPECT_TRUE(Eventually([&] { return Works(channel); }, kLong));
}

TEST_F(Rotation, AChannelChangesItsAuthority) {
  const TlsFiles files = new_.Make(Role::kViewer);
  const std::shared_ptr<grpc::Channel> channel = Channel(files);
  EXPECT_FALSE(Works(channel));
  Copy(old_.Make(Role::kViewer), files);
  EXPECT_TRUE(Eventually([&] { return Works(channel); }, kLong));
}

TEST_F(Rotation, BrokenFilesAreMendedWithoutARestart) {
  const TlsFiles client = old_.Make(Role::kViewer);
  const std::string good = testutil::ReadFile(server_files_.key);
  testutil::WriteFile(server_files_.key, testutil::ReadFile(client.key));
  EXPECT_TRUE(Eventually([&] { return !Works(Channel(client)); }, kLong));
  testutil::WriteFile(server_files_.key, good);
  EXPECT_TRUE(Eventually([&] { return Works(Channel(client)); }, kLong));
}

}  // namespace
}  // namespace smartpipe
