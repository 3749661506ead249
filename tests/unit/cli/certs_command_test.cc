#include "cli/certs_command.h"

#include <sys/stat.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/rpc/tls.h"
#include "tests/testutil/process.h"

namespace smartpipe {
namespace {

using testing::HasSubstr;

const std::vector<std::string>& Names() {
  static const auto* const names =
      new std::vector<std::string>{"ca", "service", "worker", "operator", "viewer", "all"};
  return *names;
}

class CertsTest : public testing::Test {
 protected:
  static int Mode(const std::string& path) {
    struct stat info;
    return stat(path.c_str(), &info) == 0 ? info.st_mode & 0777 : -1;
  }
  std::string Read(const std::string& name) const { return testutil::ReadFile(File(name)); }
  std::string File(const std::string& name) const {
    return absl::StrCat(arguments_.dir, "/", name);
  }
  std::vector<CertificateRow> Make() { return MakeCertificates(arguments_, now_).value(); }

  testutil::TempDir dir_;
  const absl::Time now_ = absl::Now();
  CertsArguments arguments_ = {.dir = dir_.File("a/tls"), .hosts = {"gpu-7.lan"}};
};

TEST_F(CertsTest, MakesEachRoleAndAll) {
  const std::vector<CertificateRow> rows = Make();
  ASSERT_EQ(rows.size(), Names().size());
  for (size_t i = 0; i < rows.size(); ++i) {
    EXPECT_EQ(rows[i].name, Names()[i]);
    EXPECT_TRUE(rows[i].is_new);
    EXPECT_EQ(Mode(File(Names()[i] + ".key")), 0600);
    EXPECT_EQ(CheckTlsFiles({.ca = File("ca.crt"),
                             .cert = File(Names()[i] + ".crt"),
                             .key = File(Names()[i] + ".key")},
                            now_),
              absl::OkStatus());
  }
  EXPECT_LT(absl::AbsDuration(rows.back().end - (now_ + absl::Hours(24 * 365))), absl::Seconds(2));
}

TEST_F(CertsTest, NeverOverwritesAndMakesWhatIsMissing) {
  Make();
  std::vector<std::string> before;
  for (const std::string& name : Names()) before.push_back(Read(name + ".crt"));
  remove(File("viewer.crt").c_str());
  remove(File("worker.crt").c_str());
  remove(File("worker.key").c_str());
  const std::vector<CertificateRow> rows = Make();
  for (size_t i = 0; i < rows.size(); ++i) {
    const bool was_missing = rows[i].name == "viewer" || rows[i].name == "worker";
    EXPECT_EQ(rows[i].is_new, was_missing) << rows[i].name;
    EXPECT_EQ(Read(rows[i].name + ".crt") != before[i], was_missing) << rows[i].name;
  }
}

TEST_F(CertsTest, RenewsAllButTheAuthority) {
  Make();
  const std::string ca = Read("ca.crt"), ca_key = Read("ca.key"), key = Read("worker.key");
  arguments_.renew = true;
  const std::vector<CertificateRow> rows = Make();
  EXPECT_FALSE(rows[0].is_new);
  EXPECT_TRUE(rows[1].is_new);
  EXPECT_EQ(Read("ca.crt"), ca);
  EXPECT_EQ(Read("ca.key"), ca_key);
  EXPECT_NE(Read("worker.key"), key);
  EXPECT_EQ(Mode(File("worker.key")), 0600);
}

TEST_F(CertsTest, ARenewedOneKeepsItsHostsAndTakesMore) {
  arguments_.hosts = {"gpu-7.lan", "10.0.0.7", "FE80:0::1"};
  Make();
  Make();  // nothing to do
  arguments_.hosts = {"gpu-8.lan"};
  EXPECT_EQ(MakeCertificates(arguments_, now_).status().message(),
            File("service.crt") +
                ": it is there and does not name gpu-8.lan; give --renew to have it made anew");
  arguments_.renew = true;
  Make();
  for (const char* name : {"service.crt", "all.crt"}) {
    EXPECT_THAT(*HostsOf(Read(name)),
                testing::UnorderedElementsAre("localhost", "127.0.0.1", "::1", "freeze_service",
                                              "parameter_service", "gpu-7.lan", "10.0.0.7",
                                              "fe80::1", "gpu-8.lan"));
  }
  EXPECT_TRUE(HostsOf(Read("worker.crt"))->empty());
}

TEST_F(CertsTest, HalfOfAPairIsNotReplaced) {
  Make();
  remove(File("ca.key").c_str());
  EXPECT_THAT(MakeCertificates(arguments_, now_).status().ToString(),
              HasSubstr("ca.crt is there, but " + File("ca.key") + " is not; bring that back"));
  testutil::WriteFile(File("ca.key"), "hello");
  arguments_.renew = true;
  EXPECT_THAT(MakeCertificates(arguments_, now_).status().ToString(), HasSubstr("not PEM"));
  arguments_.renew = false;
  remove(File("all.key").c_str());
  EXPECT_THAT(MakeCertificates(arguments_, now_).status().ToString(),
              HasSubstr("all.crt is there, but"));
}

TEST_F(CertsTest, AMalformedHostAndAFileInTheWayAreRefused) {
  arguments_.hosts = {"gpu-7:50051"};
  EXPECT_THAT(MakeCertificates(arguments_, now_).status().ToString(),
              HasSubstr("\"gpu-7:50051\" is not a host"));
  testutil::WriteFile(dir_.File("file"), "");
  arguments_.dir = dir_.File("file");
  EXPECT_FALSE(MakeCertificates(arguments_, now_).ok());
}

}  // namespace
}  // namespace smartpipe
