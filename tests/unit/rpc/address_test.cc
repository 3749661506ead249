#include "services/rpc/address.h"

#include <string>

#include "absl/strings/ascii.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace smartpipe {
namespace {

TEST(ParseHostPort, AcceptsHostsAndBracketedAddresses) {
  struct Case {
    std::string text, host;
    int port;
    bool loopback;
  };
  for (const Case& c :
       {Case{"127.0.0.1:50051", "127.0.0.1", 50051, true},
        Case{"localhost:0", "localhost", 0, true}, Case{"[::1]:80", "::1", 80, true},
        Case{"0.0.0.0:1", "0.0.0.0", 1, false}, Case{"[::]:1", "::", 1, false},
        Case{"gpu-7.lan:65535", "gpu-7.lan", 65535, false},
        Case{"freeze_service:50051", "freeze_service", 50051, false}}) {
    absl::StatusOr<HostPort> address = ParseHostPort(c.text);
    ASSERT_TRUE(address.ok()) << c.text << ": " << address.status();
    EXPECT_EQ(address->host, c.host);
    EXPECT_EQ(address->port, c.port);
    EXPECT_EQ(address->is_loopback(), c.loopback) << c.text;
    EXPECT_EQ(address->ToString(), c.text);
  }
}

TEST(ParseHostPort, RefusesAnythingElse) {
  for (const char* text : {"", "localhost", ":80", "a:", "a:x", "a:-1", "a:65536", "::1:80",
                           "[]:80", "a b:1", "a:1 2", "unix:/tmp/x:1"}) {
    const absl::Status status = ParseHostPort(text).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(std::string(status.message()), testing::HasSubstr("write HOST:PORT")) << text;
  }
}

TEST(SourceAddressTo, IsTheOneOfTheSameNetwork) {
  EXPECT_EQ(SourceAddressTo(ParseHostPort("127.0.0.1:1").value()).value(), "127.0.0.1");
  EXPECT_EQ(SourceAddressTo(ParseHostPort("127.0.0.7:1").value()).value(), "127.0.0.1");
  EXPECT_THAT(SourceAddressTo(ParseHostPort("localhost:1").value()).value(),
              testing::AnyOf("127.0.0.1", "::1"));
  const absl::Status unknown =
      SourceAddressTo(ParseHostPort("no-such-host.invalid:1").value()).status();
  EXPECT_EQ(unknown.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(unknown.message()),
              testing::HasSubstr("no address towards no-such-host.invalid:1: "));
}

TEST(ShortHostName, HasNoDomainAndNoCapitals) {
  const std::string name = ShortHostName();
  EXPECT_FALSE(name.empty());
  EXPECT_EQ(name.find('.'), std::string::npos);
  EXPECT_EQ(name, absl::AsciiStrToLower(name));
}

}  // namespace
}  // namespace smartpipe
