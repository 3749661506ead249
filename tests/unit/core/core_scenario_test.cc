// The control protocol and the policies, as text files: tests/scenario/core/*.txt and
// tests/scenario/policy/*.txt.
#include "gtest/gtest.h"
#include "tests/testutil/scenario.h"
#include "tests/unit/core/core_player.h"

namespace smartpipe::testutil {
namespace {

void PlayFolder(const std::string& folder) {
  for (const std::string& path : ScenarioFiles(folder)) {
    CorePlayer player;
    RunScenario(path, [&](const ScenarioCommand& command) { return player.Play(command); });
  }
}

TEST(CoreScenarios, Protocol) { PlayFolder("core"); }
TEST(CoreScenarios, Policies) { PlayFolder("policy"); }

}  // namespace
}  // namespace smartpipe::testutil
