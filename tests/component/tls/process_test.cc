// The programs with TLS, and strangers at their doors.
#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "gmock/gmock.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "grpcpp/security/tls_certificate_provider.h"
#include "grpcpp/security/tls_credentials_options.h"
#include "gtest/gtest.h"
#include "openssl/ssl.h"
#include "services/rpc/channel.h"
#include "tests/component/freeze_service/service_harness.h"
#include "tests/testutil/certificates.h"

namespace smartpipe {
namespace {

using testing::HasSubstr;
using testing::Not;
using testutil::Process;
using testutil::TestAuthority;
using Stub = v1::FreezeService::Stub;

std::vector<std::string> Flags(const TlsFiles& files) {
  return {"--tls-ca", files.ca, "--tls-cert", files.cert, "--tls-key", files.key};
}

int Count(const std::string& text, const std::string& word) {
  return static_cast<int>(std::vector<std::string>(absl::StrSplit(text, word)).size()) - 1;
}

grpc::Status StopNow(const std::shared_ptr<grpc::Channel>& channel) {
  const auto stub = v1::FreezeService::NewStub(channel);
  v1::StopRequest request;
  request.set_reason("a test");
  v1::StopResponse response;
  return CallStub(*stub, &Stub::Stop, request, &response);
}

/// What OpenSSL's client says after a handshake with no newer version than `version`; "" = it
/// works.
std::string HandshakeError(int port, const TlsFiles& files, int version) {
  std::unique_ptr<SSL_CTX, decltype(&SSL_CTX_free)> context(SSL_CTX_new(TLS_client_method()),
                                                            SSL_CTX_free);
  SSL_CTX_set_security_level(context.get(), 0);  // or this side would refuse old versions
  SSL_CTX_set_min_proto_version(context.get(), TLS1_VERSION);
  SSL_CTX_set_max_proto_version(context.get(), version);
  SSL_CTX_use_certificate_file(context.get(), files.cert.c_str(), SSL_FILETYPE_PEM);
  SSL_CTX_use_PrivateKey_file(context.get(), files.key.c_str(), SSL_FILETYPE_PEM);
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(static_cast<uint16_t>(port))};
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  EXPECT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  std::unique_ptr<SSL, decltype(&SSL_free)> ssl(SSL_new(context.get()), SSL_free);
  SSL_set_fd(ssl.get(), fd);
  const unsigned char protocols[] = "\x02h2";
  SSL_set_alpn_protos(ssl.get(), protocols, 3);
  const int result = SSL_connect(ssl.get());
  const std::string error =
      result == 1 ? "" : absl::StrCat("error ", SSL_get_error(ssl.get(), result));
  close(fd);
  return error;
}

class TlsProcess : public testing::Test {
 protected:
  TlsProcess() { testutil::WriteFile(dir_.File("run.toml"), kTestConfig); }

  std::vector<std::string> Argv(const std::vector<std::string>& more,
                                const std::string& listen = "127.0.0.1:0") const {
    std::vector<std::string> argv = {testutil::Binary("freeze_service"),
                                     "--config",
                                     dir_.File("run.toml"),
                                     "--run-dir",
                                     dir_.path(),
                                     "--listen",
                                     listen,
                                     "--ready-fd",
                                     "1"};
    argv.insert(argv.end(), more.begin(), more.end());
    return argv;
  }
  std::vector<std::string> TlsArgv() const { return Argv(Flags(authority_.MakeService())); }
  static std::shared_ptr<grpc::Channel> Channel(int port, const TlsFiles& files) {
    return MakeChannel(
        {.address = absl::StrCat("127.0.0.1:", port), .keepalive = {}, .tls = files});
  }

  /// Of a client that has no certificate itself.
  std::shared_ptr<grpc::ChannelCredentials> OnlyAuthority() const {
    grpc::experimental::TlsChannelCredentialsOptions options;
    options.set_certificate_provider(
        std::make_shared<grpc::experimental::FileWatcherCertificateProvider>(
            authority_.File("ca.crt"), 1));
    options.watch_root_certs();
    return grpc::experimental::TlsCredentials(options);  // takes them: no second use
  }

  testutil::TempDir dir_;
  TestAuthority authority_;
};

TEST_F(TlsProcess, StrangersAreRefusedAndLoggedOnce) {
  Process process(TlsArgv());
  const int port = testutil::AnnouncedPort(process);
  const TestAuthority other;
  const CertificateSubject expired = {.name = "late", .roles = {Role::kOperator}, .hosts = {}};
  TlsFiles of_other = other.Make(Role::kOperator);
  of_other.ca = authority_.File("ca.crt");  // it trusts the service all the same
  const auto stub = v1::FreezeService::NewStub(Channel(port, authority_.Make(Role::kOperator)));
  v1::GetRunResponse before, after;
  ASSERT_TRUE(CallStub(*stub, &Stub::GetRun, v1::GetRunRequest(), &before).ok());
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(StopNow(Channel(port, {})).error_code(), grpc::StatusCode::UNAVAILABLE);
    EXPECT_EQ(StopNow(Channel(port, of_other)).error_code(), grpc::StatusCode::UNAVAILABLE);
    EXPECT_EQ(StopNow(Channel(port, authority_.Make(expired, -absl::Hours(2), -absl::Hours(1))))
                  .error_code(),
              grpc::StatusCode::UNAVAILABLE);
    EXPECT_EQ(StopNow(grpc::CreateChannel(absl::StrCat("127.0.0.1:", port), OnlyAuthority()))
                  .error_code(),
              grpc::StatusCode::UNAVAILABLE);
    EXPECT_EQ(StopNow(Channel(port, authority_.Make(Role::kViewer))).error_code(),
              grpc::StatusCode::PERMISSION_DENIED);
  }
  ASSERT_TRUE(CallStub(*stub, &Stub::GetRun, v1::GetRunRequest(), &after).ok());
  EXPECT_EQ(after.run().state(), v1::RUN_STATE_WAITING);
  before.mutable_run()->clear_now_us();
  after.mutable_run()->clear_now_us();
  EXPECT_EQ(after.DebugString(), before.DebugString());
  const std::string log = process.output();
  for (const char* sentence :
       {"refused a connection: the other side does not speak TLS; give both sides --tls-ca",
        "refused a connection: the client's certificate is not accepted (unable to get local "
        "issuer certificate); it must come from an authority in the file of --tls-ca",
        "refused a connection: the client's certificate is not accepted (certificate has expired); "
        "renew it",
        "refused a connection: the client has no certificate; start it with --tls-ca",
        "refused a call: \"viewer\" (role viewer) may not call smartpipe.v1.FreezeService/Stop, "
        "which needs role operator"}) {
    EXPECT_EQ(Count(log, sentence), 1) << sentence << "\nin:\n" << log;
  }
  EXPECT_EQ(Count(log, " warning "), 5) << log;
}

TEST_F(TlsProcess, SpeaksTls12OrNewer) {
  Process process(TlsArgv());
  const int port = testutil::AnnouncedPort(process);
  const TlsFiles viewer = authority_.Make(Role::kViewer);
  EXPECT_EQ(HandshakeError(port, viewer, TLS1_3_VERSION), "");
  EXPECT_EQ(HandshakeError(port, viewer, TLS1_2_VERSION), "");
  EXPECT_NE(HandshakeError(port, viewer, TLS1_1_VERSION), "");
}

TEST_F(TlsProcess, AClientRefusesAStrangersService) {
  const TlsFiles worker = authority_.Make(Role::kWorker);
  {
    const TestAuthority other;
    Process process(Argv(Flags(other.MakeService())));
    const std::string address = absl::StrCat("127.0.0.1:", testutil::AnnouncedPort(process));
    const auto channel = MakeChannel({.address = address, .keepalive = {}, .tls = worker});
    EXPECT_THAT(StopNow(channel).error_message(), HasSubstr("certificate verify failed"));
    EXPECT_EQ(
        WaitConnected(*channel, address, absl::Milliseconds(300), worker).message(),
        absl::StrCat("nobody answers at ", address,
                     " within 300ms, or whoever does refuses the certificate in ", worker.cert,
                     ", or has one that does not name this host; the logs of both sides say "
                     "why"));
  }
  {  // the right authority, but for another host
    Process process(Argv(Flags(authority_.Make(
        {.name = "elsewhere", .roles = {Role::kService}, .hosts = {"gpu-7.lan"}}))));
    EXPECT_THAT(StopNow(Channel(testutil::AnnouncedPort(process), worker)).error_message(),
                HasSubstr("Hostname Verification Check failed"));
  }
  // A client's certificate does not make a service.
  Process process(Argv(Flags(authority_.Make(Role::kOperator))));
  EXPECT_THAT(StopNow(Channel(testutil::AnnouncedPort(process), worker)).error_message(),
              HasSubstr("certificate verify failed"));
}

TEST_F(TlsProcess, BeyondLoopbackOnlyWithTlsOrByNameAndLoudly) {
  {
    Process process(Argv({}, "0.0.0.0:0"));
    EXPECT_EQ(process.Wait(absl::Seconds(10)), 1);
    EXPECT_THAT(process.output(), HasSubstr("refused to listen on 0.0.0.0:0: that address can be "
                                            "reached from other machines"));
  }
  {
    Process process(Argv({"--insecure"}, "0.0.0.0:0"));
    EXPECT_NE(testutil::AnnouncedPort(process), 0);
    EXPECT_EQ(Count(process.output(),
                    "warning freeze_service: INSECURE: 0.0.0.0:0 is open to "
                    "everyone who can reach it"),
              1)
        << process.output();
  }
  {
    Process process(Argv(Flags(authority_.MakeService()), "0.0.0.0:0"));
    const int port = testutil::AnnouncedPort(process);
    EXPECT_NE(StopNow(Channel(port, authority_.Make(Role::kOperator))).error_code(),
              grpc::StatusCode::UNAVAILABLE);
    EXPECT_THAT(process.output(), Not(HasSubstr("INSECURE")));
  }
  std::vector<std::string> both = Flags(authority_.MakeService());
  both.push_back("--insecure");
  Process process(Argv(both));
  EXPECT_EQ(process.Wait(absl::Seconds(10)), 1);
  EXPECT_THAT(process.output(), HasSubstr("--insecure and TLS files exclude each other"));
}

TEST_F(TlsProcess, BadFilesStopEachProgramWithASentence) {
  TlsFiles expired = authority_.Make({.name = "old", .roles = {Role::kService}, .hosts = {}},
                                     -absl::Hours(2), -absl::Hours(1));
  std::vector<std::vector<std::string>> programs = {
      Argv({}),
      {testutil::Binary("parameter_service"), "--listen", "127.0.0.1:0", "--dir",
       dir_.File("store")}};
  for (std::vector<std::string> argv : programs) {
    for (const std::string& flag : Flags(expired)) argv.push_back(flag);
    Process process(argv);
    EXPECT_EQ(process.Wait(absl::Seconds(10)), 1);
    EXPECT_THAT(process.output(), HasSubstr("old.crt expired at 20"));
  }
}

TEST_F(TlsProcess, TellsHealthOnAnotherPort) {
  std::vector<std::string> argv = TlsArgv();
  argv.insert(argv.end(), {"--health-listen", "127.0.0.1:0"});
  Process process(argv);
  EXPECT_NE(testutil::AnnouncedPort(process), 0);
  const std::vector<std::string> parts = absl::StrSplit(process.output(), "telling health on ");
  ASSERT_EQ(parts.size(), 2u) << process.output();
  const std::string address = parts[1].substr(0, parts[1].find('\n'));
  grpc::ClientContext context;
  grpc::health::v1::HealthCheckResponse response;
  const auto stub =
      grpc::health::v1::Health::NewStub(MakeChannel({.address = address, .keepalive = {}}));
  ASSERT_TRUE(stub->Check(&context, {}, &response).ok());
  EXPECT_EQ(response.status(), grpc::health::v1::HealthCheckResponse::SERVING);
}

// As workers do it: calls that fail at once, and nothing else that would look at the connection.
TEST_F(TlsProcess, AServiceThatWasStartedAgainIsReachedSoon) {
  auto process = std::make_unique<Process>(TlsArgv());
  const int port = testutil::AnnouncedPort(*process);
  const auto stub = v1::FreezeService::NewStub(Channel(port, authority_.Make(Role::kViewer)));
  const auto answers = [&stub] {
    v1::GetRunResponse response;
    return CallStub(*stub, &Stub::GetRun, v1::GetRunRequest(), &response).ok();
  };
  ASSERT_TRUE(answers());
  process->Signal(SIGKILL);
  EXPECT_EQ(process->Wait(absl::Seconds(10)), 128 + SIGKILL);
  // Until an attempt to connect is under way that no call waits for.
  const absl::Time away = absl::Now() + absl::Seconds(1);
  EXPECT_TRUE(
      testutil::Eventually([&] { return !answers() && absl::Now() > away; }, absl::Seconds(20)));
  std::vector<std::string> argv = TlsArgv();
  *std::find(argv.begin(), argv.end(), "127.0.0.1:0") = absl::StrCat("127.0.0.1:", port);
  process = std::make_unique<Process>(argv);
  testutil::AnnouncedPort(*process);
  EXPECT_TRUE(testutil::Eventually(answers, absl::Seconds(15)));
}

TEST_F(TlsProcess, TheProbeSaysWhetherAServiceServes) {
  const auto probe = [](std::vector<std::string> words) {
    words.insert(words.begin(), testutil::Binary("health_probe"));
    Process process(words);
    const std::optional<int> code = process.Wait(absl::Seconds(20));
    return absl::StrCat(code.value_or(-1), " ", process.output());
  };
  std::string address;
  {
    std::vector<std::string> argv = TlsArgv();
    argv.insert(argv.end(), {"--health-listen", "127.0.0.1:0"});
    Process process(argv);
    const int port = testutil::AnnouncedPort(process);
    const std::vector<std::string> parts = absl::StrSplit(process.output(), "telling health on ");
    ASSERT_EQ(parts.size(), 2u) << process.output();
    address = parts[1].substr(0, parts[1].find('\n'));
    EXPECT_EQ(probe({address}), absl::StrCat("0 ", address, " serves\n"));
    EXPECT_EQ(probe({address, "--service", "smartpipe.v1.FreezeService"}),
              absl::StrCat("0 ", address, " serves\n"));
    EXPECT_THAT(probe({address, "--service", "nothing"}), HasSubstr("1 " + address));
    // The other port wants TLS.
    EXPECT_THAT(probe({absl::StrCat("127.0.0.1:", port), "--timeout-s", "1"}),
                HasSubstr("does not serve: "));
  }
  EXPECT_THAT(probe({address}), HasSubstr(absl::StrCat("1 ", address, " does not serve: ")));
  EXPECT_THAT(probe({"nowhere"}), HasSubstr("2 health_probe: \"nowhere\" is not an address"));
  EXPECT_THAT(probe({}), HasSubstr("address is required"));
}

// From nothing to a call, as a person does it.
TEST_F(TlsProcess, TheCertificatesOfTheCommandWork) {
  const std::string tls = dir_.File("tls");
  Process certs({testutil::Binary("smartpipe"), "certs", tls});
  ASSERT_EQ(certs.Wait(absl::Seconds(10)), 0) << certs.output();
  const auto files = [&tls](const std::string& name) {
    return TlsFiles{.ca = tls + "/ca.crt",
                    .cert = absl::StrCat(tls, "/", name, ".crt"),
                    .key = absl::StrCat(tls, "/", name, ".key")};
  };
  Process process(Argv(Flags(files("service"))));
  const int port = testutil::AnnouncedPort(process);
  StartedRun run(Channel(port, files("worker")));
  EXPECT_EQ(StopNow(Channel(port, files("viewer"))).error_code(),
            grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_TRUE(StopNow(Channel(port, files("operator"))).ok());
  v1::GetRunResponse response;
  const auto stub = v1::FreezeService::NewStub(Channel(port, files("all")));
  EXPECT_TRUE(CallStub(*stub, &Stub::GetRun, v1::GetRunRequest(), &response).ok());
}

}  // namespace
}  // namespace smartpipe
