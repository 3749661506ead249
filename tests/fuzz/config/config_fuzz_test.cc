// Smoke fuzz of the config reader: whatever the bytes, it gives a config or a message, and never
// crashes.
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "services/config/run_config.h"
#include "tests/testutil/fuzz.h"

namespace smartpipe {
namespace {

constexpr int kRounds = 4000;

class ConfigFuzzTest : public testutil::FuzzTest {
 protected:
  std::string RandomBytes(size_t size_max) {
    std::string bytes(Below(size_max), '\0');
    for (char& byte : bytes) byte = static_cast<char>(Below(256));
    return bytes;
  }

  std::string Mutate(std::string text) {
    static const std::vector<std::string> kTokens = {
        "[",    "]",     "[[",    "]]",   "=",          "\"",  "'",      "\n",
        "-1",   "0",     "1e999", "nan",  "inf",        "\\u", "\"\"\"", "#",
        "true", "{a=1}", "[1,2]", "\xff", "1979-05-27", "\0",  ".",      "9999999999999999999"};
    return Edited(std::move(text), {.edits_max = 4, .copy_max = 40, .tokens = kTokens});
  }

  // Good or explained; a good one survives the round trip.
  void Check(const std::string& text, const std::vector<std::string>& sets = {}) {
    const auto config = ParseRunConfig(text, "fuzz.toml", sets);
    if (!config.ok()) {
      EXPECT_EQ(config.status().code(), absl::StatusCode::kInvalidArgument);
      EXPECT_FALSE(config.status().message().empty());
      return;
    }
    const std::string canonical = ToToml(*config);
    const auto again = ParseRunConfig(canonical, "canonical.toml");
    ASSERT_TRUE(again.ok()) << again.status() << "\n" << canonical;
    EXPECT_EQ(ToToml(*again), canonical);
  }
};

TEST_F(ConfigFuzzTest, MutatedConfigs) {
  RunConfig config;
  config.pipeline.stages = 3;
  config.pipeline.cuts = {2, 4};
  config.freeze.policy = "schedule";
  config.freeze.schedule = {{0, 1}, {100, 3}};
  config.data.path = "/data";
  const std::string good = ToToml(config);
  for (int i = 0; i < kRounds; ++i) Check(Mutate(good));
}

TEST_F(ConfigFuzzTest, RandomBytes) {
  for (int i = 0; i < kRounds; ++i) Check(RandomBytes(300));
}

TEST_F(ConfigFuzzTest, RandomSets) {
  const std::vector<ConfigKey> keys = ConfigKeys();
  for (int i = 0; i < kRounds; ++i) {
    const ConfigKey& key = keys[Below(keys.size())];
    Check("", {key.key + "=" + RandomBytes(30), Mutate(key.key + "=" + key.default_value)});
  }
}

TEST_F(ConfigFuzzTest, DeepNesting) {
  for (const char* open : {"[", "{a="}) {
    std::string text = "[pipeline]\ncuts = ";
    for (int i = 0; i < 100'000; ++i) text += open;
    Check(text);
    Check("", {"pipeline.cuts=" + text.substr(text.find(open))});
  }
  std::string dotted = "a";
  for (int i = 0; i < 50'000; ++i) dotted += ".a";
  Check(dotted + " = 1\n");
  Check("[" + dotted + "]\n");
}

}  // namespace
}  // namespace smartpipe
