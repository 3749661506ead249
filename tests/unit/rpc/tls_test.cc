#include "services/rpc/tls.h"

#include <sys/stat.h>

#include <string>

#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/obs/log.h"
#include "services/rpc/certificates.h"
#include "services/rpc/openssl.h"
#include "services/rpc/refusals.h"
#include "tests/testutil/certificates.h"

namespace smartpipe {
namespace {

using testing::HasSubstr;
using testutil::TestAuthority;

class TlsFilesTest : public testing::Test {
 protected:
  /// The message of the refusal; "" = none.
  static std::string Check(const TlsFiles& files, absl::Duration from_now = absl::ZeroDuration()) {
    return std::string(CheckTlsFiles(files, absl::Now() + from_now).message());
  }
  static std::string Replaced(const TlsFiles& files, std::string TlsFiles::*path,
                              const std::string& text) {
    TlsFiles changed = files;
    changed.*path += ".other";
    testutil::WriteFile(changed.*path, text);
    return Check(changed);
  }

  TestAuthority authority_;
  TlsFiles files_ = authority_.MakeService();
};

TEST_F(TlsFilesTest, GoodOnesPassAndNoneIsGood) {
  EXPECT_EQ(Check(files_), "");
  EXPECT_EQ(Check({}), "");
}

TEST_F(TlsFilesTest, AllOrNone) {
  EXPECT_EQ(Check({.ca = files_.ca, .cert = "", .key = ""}),
            "TLS needs three files, but --tls-cert and --tls-key (in a config tls.cert, tls.key) "
            "are not given; give all three, or none for connections without TLS");
  for (std::string TlsFiles::*path : {&TlsFiles::ca, &TlsFiles::cert, &TlsFiles::key}) {
    TlsFiles one_missing = files_;
    (one_missing.*path).clear();
    EXPECT_THAT(Check(one_missing), HasSubstr("give all three"));
  }
}

TEST_F(TlsFilesTest, AMissingFileIsNamed) {
  for (std::string TlsFiles::*path : {&TlsFiles::ca, &TlsFiles::cert, &TlsFiles::key}) {
    TlsFiles files = files_;
    files.*path = authority_.File("nowhere");
    EXPECT_THAT(Check(files), HasSubstr("cannot open " + authority_.File("nowhere")));
    files.*path = authority_.File("");
    EXPECT_THAT(Check(files), HasSubstr("is a folder, not a file"));
  }
}

TEST_F(TlsFilesTest, WhatIsNotPemIsNamed) {
  for (const char* text : {"", "hello", "-----BEGIN CERTIFICATE-----\nAAAA\n"}) {
    EXPECT_THAT(Replaced(files_, &TlsFiles::ca, text),
                HasSubstr("ca.crt.other holds no PEM certificate"));
    EXPECT_THAT(Replaced(files_, &TlsFiles::cert, text),
                HasSubstr("server.crt.other holds no PEM certificate"));
    EXPECT_THAT(Replaced(files_, &TlsFiles::key, text),
                HasSubstr("server.key.other holds no PEM private key"));
  }
  // The two mixed up.
  EXPECT_THAT(Replaced(files_, &TlsFiles::cert, testutil::ReadFile(files_.key)),
              HasSubstr("holds no PEM certificate"));
  EXPECT_THAT(Replaced(files_, &TlsFiles::cert, std::string(2 << 20, 'x')),
              HasSubstr("is it the right file?"));
}

TEST_F(TlsFilesTest, AKeyOfAnotherCertificateIsRefused) {
  const TlsFiles worker = authority_.Make(Role::kWorker);
  EXPECT_EQ(Check({.ca = files_.ca, .cert = files_.cert, .key = worker.key}),
            "the key in " + worker.key + " does not belong to the certificate in " + files_.cert +
                "; give the two of one pair");
}

TEST_F(TlsFilesTest, TheTimeMustFit) {
  EXPECT_THAT(Check(files_, absl::Hours(31 * 24)), HasSubstr("server.crt expired at 20"));
  EXPECT_THAT(Check(files_, -absl::Hours(2)), HasSubstr("server.crt is not valid before 20"));
}

TEST_F(TlsFilesTest, WarnsOfAKeyThatOthersCanReadAndOfAnEndThatIsNear) {
  ASSERT_TRUE(
      InitLogging(
          {.process = "test", .level = "info", .file = authority_.File("log"), .to_stderr = false})
          .ok());
  chmod(files_.key.c_str(), 0644);
  EXPECT_EQ(Check(files_, absl::Hours(29 * 24)), "");
  const std::string log = testutil::ReadFile(authority_.File("log"));
  EXPECT_THAT(log, HasSubstr("everyone on this machine can read the private key in " + files_.key +
                             "; run chmod 600"));
  EXPECT_THAT(log, HasSubstr("server.crt expires at 20"));
}

TEST(Certificates, RefuseMalformedNamesAndHosts) {
  const TestAuthority authority;
  const Validity validity = {absl::Now(), absl::Now() + absl::Hours(1)};
  for (const char* host :
       {"", "a b", "x,URI:urn:smartpipe:role:operator", "a:1", "a/b", "section@", "\n", "[::1]"}) {
    const absl::Status status =
        MakeCertificate(authority.certificate(), {.name = "x", .roles = {}, .hosts = {host}},
                        validity)
            .status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << host;
  }
  for (const std::string& name : {std::string(), std::string(65, 'x')}) {
    EXPECT_EQ(MakeCertificate(authority.certificate(), {.name = name}, validity).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
  EXPECT_TRUE(MakeCertificate(authority.certificate(),
                              {.name = "x", .roles = {}, .hosts = {"gpu-7.lan", "::1", "10.0.0.1"}},
                              validity)
                  .ok());
}

TEST(Certificates, EndWithTheirAuthority) {
  const TestAuthority authority;  // good for two months
  const Certificate made = MakeCertificate(authority.certificate(), {.name = "x"},
                                           {absl::Now(), absl::Now() + absl::Hours(24 * 365)})
                               .value();
  EXPECT_EQ(ValidityOf(made.cert)->end, ValidityOf(authority.certificate().cert)->end);
}

TEST(Certificates, AnAuthorityWithAnotherKeyIsRefused) {
  const TestAuthority one, two;
  const Certificate mixed = {one.certificate().cert, two.certificate().key};
  EXPECT_THAT(MakeCertificate(mixed, {.name = "x"}, {absl::Now(), absl::Now()}).status().ToString(),
              HasSubstr("not of one pair"));
}

TEST(Refusals, EachTextPassesOnceAMinute) {
  OncePerMinute once;
  const absl::Time start = absl::UnixEpoch();
  EXPECT_TRUE(once.Pass("a", start));
  EXPECT_FALSE(once.Pass("a", start + absl::Seconds(59)));
  EXPECT_TRUE(once.Pass("b", start + absl::Seconds(59)));
  EXPECT_TRUE(once.Pass("a", start + absl::Seconds(60)));
  EXPECT_FALSE(once.Pass("b", start + absl::Seconds(60)));
  // Texts without end neither fill the log nor the memory.
  int passed = 0;
  for (int i = 0; i < 5000; ++i) passed += once.Pass(std::to_string(i), start + absl::Seconds(61));
  EXPECT_LE(passed, 1000);
}

TEST(Refusals, GrpcsWordsAreExplained) {
  const std::string handshake = "Handshake failed with fatal error SSL_ERROR_SSL: error:0A0000C7:";
  EXPECT_THAT(ExplainGrpcError(handshake + "SSL routines::peer did not return a certificate."),
              HasSubstr("the client has no certificate"));
  EXPECT_THAT(ExplainGrpcError(handshake + "SSL routines::wrong version number."),
              HasSubstr("does not speak TLS"));
  EXPECT_EQ(ExplainGrpcError("Handshake failed with fatal error SSL_ERROR_SSL: something else."),
            "refused a connection: the TLS handshake failed (SSL_ERROR_SSL: something else)");
  EXPECT_THAT(ExplainGrpcError("No match found for server name: gpu-7."),
              HasSubstr("a client dials gpu-7 and will give up: the certificate of this service"));
  EXPECT_THAT(ExplainGrpcError("Update handshaker factory failed."), HasSubstr("on the disk"));
  EXPECT_EQ(ExplainGrpcError("Unrelated."), "");
}

}  // namespace
}  // namespace smartpipe
